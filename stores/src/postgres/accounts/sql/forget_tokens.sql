-- Never waits for whoever uses such a token at this moment.
DELETE FROM refresh_tokens
WHERE digest IN (
    SELECT digest FROM refresh_tokens WHERE expires_at <= $1 LIMIT 1000 FOR UPDATE SKIP LOCKED
)
