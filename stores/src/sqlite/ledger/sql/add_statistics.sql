INSERT INTO statistics VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
  tokens = tokens + excluded.tokens,
  chat = chat + excluded.chat,
  plagiarism = plagiarism + excluded.plagiarism,
  prompt_generation = prompt_generation + excluded.prompt_generation
RETURNING tokens, chat, plagiarism, prompt_generation
