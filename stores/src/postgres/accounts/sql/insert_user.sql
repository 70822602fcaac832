-- Nothing when the id, the address or the external id is taken, also by a transaction that is not
-- committed yet: that is waited for.
INSERT INTO users
    (id, name, email, email_key, external_id, role, password_hash, search_text,
     created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6::text::tokenmeter_role, $7, $8, $9, $9)
ON CONFLICT DO NOTHING
