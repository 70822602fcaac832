-- Summaries and statistics from the events, all in the caller's transaction.
DELETE FROM daily;
INSERT INTO daily
SELECT
  day, user, request_type, model, plan,
  count(*), sum(prompt), sum(completion), sum(cached), sum(reasoning), max(offset) + 1
FROM dated_events
GROUP BY 1, 2, 3, 4, 5;

DELETE FROM hourly;
INSERT INTO hourly
SELECT
  hour, request_type, model, plan,
  count(*), sum(prompt), sum(completion), sum(cached), sum(reasoning), max(offset) + 1
FROM dated_events
GROUP BY 1, 2, 3, 4;

DELETE FROM statistics;
INSERT INTO statistics
SELECT
  user,
  strftime('%Y', day * 86400, 'unixepoch') * 12
    + strftime('%m', day * 86400, 'unixepoch') - 1,
  sum(prompt + completion),
  sum(request_type = 0), sum(request_type = 1), sum(request_type = 2)
FROM dated_events
GROUP BY 1, 2;
