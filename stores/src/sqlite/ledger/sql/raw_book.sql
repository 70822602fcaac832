-- R2: the statistics beside the events.
SELECT
  (SELECT coalesce(sum(tokens), 0) FROM statistics),
  (SELECT coalesce(sum(chat + plagiarism + prompt_generation), 0) FROM statistics)
