SELECT id, name, email, external_id, role::text AS role, locked, created_at, updated_at
FROM users
WHERE ($1::uuid IS NULL OR id > $1) AND erased_at IS NULL
    AND ($2::text IS NULL OR strpos(search_text, $2) > 0)
ORDER BY id
LIMIT $3
