-- Sums of the events that occurred in [:first, :end), user by user through the index of histories:
-- for the parts of hours and days at the edges of a question.
SELECT
  occurred_at / :width AS bucket,
  iif(:by_type, request_type, NULL) AS by_type,
  iif(:by_model, model, NULL) AS by_model,
  iif(:by_plan, plan, NULL) AS by_plan,
  iif(:by_user, user, NULL) AS by_user,
  count(*), sum(prompt), sum(completion)
FROM users
CROSS JOIN events
WHERE events.user = users.number
  AND occurred_at >= :first AND occurred_at < :end
  AND (:user IS NULL OR users.number = :user)
  AND (:type IS NULL OR request_type = :type)
  AND (:model IS NULL OR model = :model)
  AND (:plan IS NULL OR plan = :plan)
GROUP BY 1, 2, 3, 4, 5
