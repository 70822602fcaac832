-- A sum that leaves 64 bits is an error of Postgres, and the whole flush with it.
INSERT INTO usage_statistics AS s
    (user_id, period, tokens, chat, plagiarism, prompt_generation)
SELECT * FROM unnest(
    $1::uuid[], $2::integer[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[]
)
ON CONFLICT (user_id, period) DO UPDATE SET
    tokens = s.tokens + excluded.tokens,
    chat = s.chat + excluded.chat,
    plagiarism = s.plagiarism + excluded.plagiarism,
    prompt_generation = s.prompt_generation + excluded.prompt_generation
RETURNING user_id, period, tokens, chat, plagiarism, prompt_generation
