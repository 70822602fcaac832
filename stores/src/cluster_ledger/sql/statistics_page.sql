SELECT user_id, period, tokens, chat, plagiarism, prompt_generation FROM usage_statistics
WHERE (user_id, period) > ($1, $2)
ORDER BY user_id, period
LIMIT $3
