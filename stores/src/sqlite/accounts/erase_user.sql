UPDATE users
SET name = NULL, email = NULL, email_key = NULL, external_id = NULL, password = NULL,
    search_text = '', locked = 1, updated_at = ?2, erased_at = ?2
WHERE id = ?1
