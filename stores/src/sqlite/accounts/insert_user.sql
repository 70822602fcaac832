INSERT INTO users
    (id, name, email, email_key, external_id, role, password, search_text, created_at, updated_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9)
