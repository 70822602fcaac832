UPDATE alerts
SET state = $2, ended_at = $3, last_error = $4, due_at = coalesce($5, due_at)
WHERE id = $1 AND state = 'waiting'
