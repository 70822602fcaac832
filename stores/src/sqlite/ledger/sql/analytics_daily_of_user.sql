-- Sums of the days [:first, :end) of one user: a seek for each day.
WITH RECURSIVE days (day) AS (
  SELECT :first WHERE :first < :end
  UNION ALL
  SELECT day + 1 FROM days WHERE day + 1 < :end
)
SELECT
  days.day / :width AS bucket,
  iif(:by_type, request_type, NULL) AS by_type,
  iif(:by_model, model, NULL) AS by_model,
  iif(:by_plan, plan, NULL) AS by_plan,
  iif(:by_user, user, NULL) AS by_user,
  sum(events), sum(prompt), sum(completion)
FROM days
CROSS JOIN daily ON daily.day = days.day AND daily.user = :user
WHERE (:type IS NULL OR request_type = :type)
  AND (:model IS NULL OR model = :model)
  AND (:plan IS NULL OR plan = :plan)
GROUP BY 1, 2, 3, 4, 5
