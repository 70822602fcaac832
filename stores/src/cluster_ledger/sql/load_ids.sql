-- What was counted below the cursor, in the order of the log: of an id, the last one stays.
SELECT id_digest, content_digest, log_time FROM token_usage_log
WHERE log_partition = {partition:UInt32} AND log_offset < {below:UInt64}
  AND log_time >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
ORDER BY log_partition, log_offset
