SELECT sum(rows)
FROM (
  SELECT count() AS rows FROM token_usage_summary FINAL
  UNION ALL
  SELECT count() FROM token_usage_hourly FINAL
)
