INSERT INTO cursors (log_partition, start_offset, position, log_time, horizon)
VALUES ($1, $2, $2, $3, $4)
ON CONFLICT DO NOTHING
