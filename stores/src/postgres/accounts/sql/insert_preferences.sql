INSERT INTO preferences
    (user_id, id, theme, notifications, default_model, created_at, updated_at)
VALUES ($1, $2, $3::text::tokenmeter_theme, $4, $5, $6, $6)
