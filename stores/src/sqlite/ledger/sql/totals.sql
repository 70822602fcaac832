SELECT tokens, chat, plagiarism, prompt_generation
FROM statistics
WHERE user = (SELECT number FROM users WHERE id = ?1) AND period = ?2
