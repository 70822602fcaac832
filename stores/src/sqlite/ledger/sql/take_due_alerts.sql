UPDATE alerts SET due_at = ?2, attempts = attempts + 1
WHERE id IN (
  SELECT id FROM alerts WHERE state = 'waiting' AND due_at <= ?1 ORDER BY due_at LIMIT ?3
)
RETURNING user_id, period, plan, meter, percent, plan_limit, used, raised_at, attempts
