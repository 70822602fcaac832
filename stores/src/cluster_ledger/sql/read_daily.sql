-- All rows of the users on their days, days[i] with users[i].
SELECT
  day, user_id, request_type, model, plan,
  events, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, version
FROM token_usage_summary FINAL
WHERE (day, user_id) IN (
  SELECT pair.1, pair.2
  FROM (SELECT arrayJoin(arrayZip({days:Array(Int32)}, {users:Array(UUID)})) AS pair)
)
