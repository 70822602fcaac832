-- R4: statistics that are not the sums of the events.
SELECT
  (SELECT id FROM users WHERE number = user), period,
  raw_tokens, raw_chat, raw_plagiarism, raw_prompts,
  kept_tokens, kept_chat, kept_plagiarism, kept_prompts
FROM (
  SELECT
    user, period,
    sum(iif(raw, tokens, 0)) AS raw_tokens,
    sum(iif(raw, chat, 0)) AS raw_chat,
    sum(iif(raw, plagiarism, 0)) AS raw_plagiarism,
    sum(iif(raw, prompt_generation, 0)) AS raw_prompts,
    sum(iif(raw, 0, tokens)) AS kept_tokens,
    sum(iif(raw, 0, chat)) AS kept_chat,
    sum(iif(raw, 0, plagiarism)) AS kept_plagiarism,
    sum(iif(raw, 0, prompt_generation)) AS kept_prompts
  FROM (
    SELECT
      user,
      strftime('%Y', day * 86400, 'unixepoch') * 12
        + strftime('%m', day * 86400, 'unixepoch') - 1 AS period,
      1 AS raw,
      prompt + completion AS tokens,
      iif(request_type = 0, events, 0) AS chat,
      iif(request_type = 1, events, 0) AS plagiarism,
      iif(request_type = 2, events, 0) AS prompt_generation
    FROM dated_cells
    UNION ALL
    SELECT user, period, 0, tokens, chat, plagiarism, prompt_generation FROM statistics
  )
  GROUP BY 1, 2
  HAVING raw_tokens <> kept_tokens
    OR raw_chat <> kept_chat
    OR raw_plagiarism <> kept_plagiarism
    OR raw_prompts <> kept_prompts
  LIMIT ?1
)
