INSERT INTO dead_letters (log_partition, log_offset, log_time, reason, detail, bytes)
SELECT * FROM unnest(
    $1::integer[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::bytea[]
)
