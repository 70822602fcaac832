INSERT INTO token_usage_hourly_rebuilt
  (hour, log_partition, request_type, model, plan,
   events, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, version)
SELECT
  toInt32(intDiv(millis - positiveModulo(millis, 3600000), 3600000)) AS bucket,
  log_partition, request_type, model, plan,
  count(), sum(toUInt64(prompt_tokens)), sum(toUInt64(completion_tokens)),
  sum(toUInt64(cached_tokens)), sum(toUInt64(reasoning_tokens)), max(log_offset) + 1
FROM (SELECT *, toUnixTimestamp64Milli(occurred_at) AS millis FROM token_usage FINAL)
WHERE log_offset < arrayElement(
  {positions:Array(UInt64)}, indexOf({partitions:Array(UInt32)}, log_partition)
)
GROUP BY bucket, log_partition, request_type, model, plan
SETTINGS max_bytes_before_external_group_by = 1000000000
