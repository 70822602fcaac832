-- The segments from the one that holds offset ?1 on, below offset ?2.
SELECT first_offset, records, log_time, body
FROM segments
WHERE first_offset >= (SELECT max(first_offset) FROM segments WHERE first_offset <= ?1)
  AND first_offset < ?2
ORDER BY first_offset
