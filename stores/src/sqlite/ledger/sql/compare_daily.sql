-- R3: rows of the daily summary that are not the sums of the events.
SELECT
  day, (SELECT id FROM users WHERE number = user),
  request_type,
  (SELECT name FROM names WHERE number = model),
  (SELECT name FROM names WHERE number = plan),
  raw_events, raw_prompt, raw_completion, raw_cached, raw_reasoning,
  kept_events, kept_prompt, kept_completion, kept_cached, kept_reasoning
FROM (
  SELECT
    day, user, request_type, model, plan,
    sum(iif(raw, events, 0)) AS raw_events,
    sum(iif(raw, prompt, 0)) AS raw_prompt,
    sum(iif(raw, completion, 0)) AS raw_completion,
    sum(iif(raw, cached, 0)) AS raw_cached,
    sum(iif(raw, reasoning, 0)) AS raw_reasoning,
    sum(iif(raw, 0, events)) AS kept_events,
    sum(iif(raw, 0, prompt)) AS kept_prompt,
    sum(iif(raw, 0, completion)) AS kept_completion,
    sum(iif(raw, 0, cached)) AS kept_cached,
    sum(iif(raw, 0, reasoning)) AS kept_reasoning
  FROM (
    SELECT day, user, request_type, model, plan, 1 AS raw, events, prompt, completion, cached, reasoning
    FROM dated_cells
    UNION ALL
    SELECT day, user, request_type, model, plan, 0, events, prompt, completion, cached, reasoning
    FROM daily
  )
  GROUP BY 1, 2, 3, 4, 5
  HAVING raw_events <> kept_events
    OR raw_prompt <> kept_prompt
    OR raw_completion <> kept_completion
    OR raw_cached <> kept_cached
    OR raw_reasoning <> kept_reasoning
  LIMIT ?1
)
