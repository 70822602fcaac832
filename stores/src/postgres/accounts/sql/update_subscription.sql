UPDATE subscriptions
SET plan = $2, status = $3::text::tokenmeter_subscription_status, start_date = $4, expires_at = $5,
    auto_renew = $6, payment_method_id = $7, updated_at = $8, version = $9
WHERE user_id = $1
