-- Two that forget at once do not wait for each other.
DELETE FROM login_attempts
WHERE number IN (
    SELECT number FROM login_attempts WHERE at < $1 LIMIT 1000 FOR UPDATE SKIP LOCKED
)
