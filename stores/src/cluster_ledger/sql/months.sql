-- R4: what the events below the cursors add up to, by user and month. Postgres orders ids as text
-- does; ClickHouse orders them otherwise.
SELECT
  user_id,
  toInt32(toYear(occurred_at) * 12 + toMonth(occurred_at) - 1) AS period,
  sum(toUInt64(prompt_tokens) + completion_tokens),
  countIf(request_type = 'chat'),
  countIf(request_type = 'plagiarism'),
  countIf(request_type = 'prompt_generation')
FROM token_usage FINAL
WHERE log_offset < arrayElement(
  {positions:Array(UInt64)}, indexOf({partitions:Array(UInt32)}, log_partition)
)
GROUP BY user_id, period
ORDER BY toString(user_id), period
SETTINGS max_bytes_before_external_group_by = 1000000000, max_bytes_before_external_sort = 1000000000
