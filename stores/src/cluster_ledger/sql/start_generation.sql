-- The start moves as far as the position does, so that what was counted stays in the books, and as much
-- less as is counted here: what is left of the log before.
UPDATE cursors AS c SET
    start_offset = c.start_offset + ($1 - c.position) - coalesce(l.events, 0),
    position = $1,
    log_time = greatest(c.log_time, l.log_time),
    counted = c.counted + coalesce(l.events, 0)
FROM cursors AS same
LEFT JOIN unnest($2::integer[], $3::bigint[], $4::bigint[]) AS l (log_partition, events, log_time)
    USING (log_partition)
WHERE c.log_partition = same.log_partition AND c.position < $1
