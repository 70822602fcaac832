-- Whoever gave a way to pay wants the plan to go on.
INSERT INTO subscriptions
    (user_id, id, plan, status, start_date, auto_renew, payment_method_id,
     created_at, updated_at, version)
VALUES ($1, $2, $3, 'active', $4, $5::text IS NOT NULL, $5, $4, $4, 1)
