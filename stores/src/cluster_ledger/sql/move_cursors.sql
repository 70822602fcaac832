-- Compare and set: a partition comes back only if its cursor was where its flush begins.
UPDATE cursors AS c SET
    position = f.to_offset,
    log_time = greatest(c.log_time, f.log_time),
    horizon = f.horizon,
    counted = c.counted + f.counted,
    duplicates = c.duplicates + f.duplicates,
    dead_letters = c.dead_letters + f.dead_letters,
    void = c.void + f.void,
    ticks = c.ticks + f.ticks
FROM unnest(
    $1::integer[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[],
    $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[]
) AS f (
    log_partition, from_offset, to_offset, log_time, horizon,
    counted, duplicates, dead_letters, void, ticks
)
WHERE c.log_partition = f.log_partition AND c.position = f.from_offset
RETURNING c.log_partition, c.position, c.log_time, c.horizon
