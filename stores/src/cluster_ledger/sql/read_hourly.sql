-- All rows of the partitions in their hours, hours[i] with partitions[i].
SELECT
  hour, log_partition, request_type, model, plan,
  events, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, version
FROM token_usage_hourly FINAL
WHERE (hour, log_partition) IN (
  SELECT pair.1, pair.2
  FROM (SELECT arrayJoin(arrayZip({hours:Array(Int32)}, {partitions:Array(UInt32)})) AS pair)
)
