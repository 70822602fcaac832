-- Every count of some ids, which come as hexadecimal digits in a row.
SELECT id_digest, log_offset, log_partition, content_digest, log_time FROM token_usage_ids
WHERE id_digest IN (
  SELECT toFixedString(substring(unhex({ids:String}), number * 16 + 1, 16), 16)
  FROM numbers({count:UInt64})
)
