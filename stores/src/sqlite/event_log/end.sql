-- One past the last record, and the log time of the last segment. No row: the log is empty.
SELECT first_offset + records, log_time
FROM segments
ORDER BY first_offset DESC
LIMIT 1
