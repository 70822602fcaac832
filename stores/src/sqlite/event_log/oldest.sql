-- The oldest ?1 segments, except the last one of the log, without their bodies.
SELECT first_offset, records, log_time
FROM segments
WHERE first_offset < (SELECT max(first_offset) FROM segments)
ORDER BY first_offset
LIMIT ?1
