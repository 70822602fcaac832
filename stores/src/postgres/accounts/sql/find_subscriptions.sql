SELECT s.user_id, s.id, plan, status::text AS status, start_date, expires_at, auto_renew,
    stripe_customer_id, stripe_subscription_id, payment_method_id, s.created_at, s.updated_at,
    version
FROM subscriptions s JOIN users u ON u.id = s.user_id
WHERE s.user_id = ANY($1) AND u.erased_at IS NULL
