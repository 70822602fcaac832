SELECT
  day, toInt8(request_type) AS kind, model,
  sum(events), sum(prompt_tokens), sum(completion_tokens)
FROM token_usage_summary FINAL
WHERE user_id = {user:UUID} AND day >= {first:Int32} AND day < {end:Int32}
GROUP BY day, kind, model
ORDER BY day, kind, model
-- A user's month is small: to share it out among threads costs more than to read it.
SETTINGS max_threads = 1
