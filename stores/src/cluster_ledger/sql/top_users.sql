-- The largest users first; then come the rows, then top_users_by.sql.
SELECT user_id, sum(prompt) + sum(completion) AS total
FROM (
