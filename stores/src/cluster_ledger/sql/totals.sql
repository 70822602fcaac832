-- Zero for who has none; in the order asked.
SELECT
    coalesce(s.tokens, 0) AS tokens,
    coalesce(s.chat, 0) AS chat,
    coalesce(s.plagiarism, 0) AS plagiarism,
    coalesce(s.prompt_generation, 0) AS prompt_generation,
    c.position
FROM unnest($1::uuid[], $2::integer[], $3::integer[])
    WITH ORDINALITY AS asked (user_id, period, log_partition, place)
LEFT JOIN usage_statistics AS s USING (user_id, period)
LEFT JOIN cursors AS c USING (log_partition)
ORDER BY asked.place
