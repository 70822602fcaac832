-- R2: the events below the cursor, and the statistics beside them.
SELECT
  (SELECT count(*) FROM events WHERE offset < ?1),
  (SELECT coalesce(sum(prompt + completion), 0) FROM events WHERE offset < ?1),
  (SELECT coalesce(sum(tokens), 0) FROM statistics),
  (SELECT coalesce(sum(chat + plagiarism + prompt_generation), 0) FROM statistics)
