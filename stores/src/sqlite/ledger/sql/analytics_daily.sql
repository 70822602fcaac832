-- Sums of the days [:first, :end) over all users.
SELECT
  day / :width AS bucket,
  iif(:by_type, request_type, NULL) AS by_type,
  iif(:by_model, model, NULL) AS by_model,
  iif(:by_plan, plan, NULL) AS by_plan,
  iif(:by_user, user, NULL) AS by_user,
  sum(events), sum(prompt), sum(completion)
FROM daily
WHERE day >= :first AND day < :end
  AND :user IS NULL
  AND (:type IS NULL OR request_type = :type)
  AND (:model IS NULL OR model = :model)
  AND (:plan IS NULL OR plan = :plan)
GROUP BY 1, 2, 3, 4, 5
