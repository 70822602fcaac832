SELECT count() FROM token_usage_log
WHERE log_partition = {partition:UInt32} AND log_offset < {below:UInt64}
  AND log_time >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
