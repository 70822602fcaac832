-- Whoever was locked or erased since the password was looked at gets a token that is never valid.
INSERT INTO refresh_tokens (digest, family, user_id, expires_at)
SELECT $1, $1, id, $3 FROM users WHERE id = $2 AND NOT locked FOR NO KEY UPDATE
