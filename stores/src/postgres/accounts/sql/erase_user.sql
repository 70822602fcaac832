UPDATE users
SET name = NULL, email = NULL, email_key = NULL, external_id = NULL, password_hash = NULL,
    search_text = '', locked = true, updated_at = $2, erased_at = $2
WHERE id = $1
