UPDATE subscriptions
SET stripe_customer_id = NULL, stripe_subscription_id = NULL, payment_method_id = NULL
WHERE user_id = $1
