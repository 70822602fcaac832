SELECT user_id, period, plan, meter, percent, plan_limit, used, raised_at,
    attempts, state, ended_at, last_error
FROM alerts
WHERE (raised_at, id) < ($1, $2) AND ($3::text IS NULL OR state = $3)
ORDER BY raised_at DESC, id DESC
LIMIT $4
