INSERT INTO alerts (id, user_id, period, plan, meter, percent, plan_limit, used, raised_at, due_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9)
ON CONFLICT (id) DO NOTHING
