-- One user's summaries of the days [?2, ?3): a seek for each day.
WITH RECURSIVE days (day) AS (
  SELECT ?2
  UNION ALL
  SELECT day + 1 FROM days WHERE day + 1 < ?3
)
SELECT days.day, daily.request_type, names.name, daily.prompt, daily.completion
FROM days
CROSS JOIN daily ON daily.day = days.day
  AND daily.user = (SELECT number FROM users WHERE id = ?1)
JOIN names ON names.number = daily.model
ORDER BY days.day
