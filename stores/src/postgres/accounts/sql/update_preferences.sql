UPDATE preferences
SET theme = $2::text::tokenmeter_theme, notifications = $3, default_model = $4, updated_at = $5
WHERE user_id = $1
