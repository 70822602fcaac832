)
GROUP BY bucket, type, model, plan, user
