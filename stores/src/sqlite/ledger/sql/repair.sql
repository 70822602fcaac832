-- Summaries and statistics from the events, all in the caller's transaction.
DELETE FROM daily;
INSERT INTO daily
SELECT
  day, user, request_type, model, plan,
  sum(events), sum(prompt), sum(completion), sum(cached), sum(reasoning),
  (SELECT max(position) FROM cursors)
FROM dated_cells
GROUP BY 1, 2, 3, 4, 5;

DELETE FROM hourly;
INSERT INTO hourly
SELECT
  hour, request_type, model, plan,
  sum(events), sum(prompt), sum(completion), sum(cached), sum(reasoning),
  (SELECT max(position) FROM cursors)
FROM dated_cells
GROUP BY 1, 2, 3, 4;

DELETE FROM statistics;
INSERT INTO statistics
SELECT
  user,
  strftime('%Y', day * 86400, 'unixepoch') * 12
    + strftime('%m', day * 86400, 'unixepoch') - 1,
  sum(prompt + completion),
  sum(iif(request_type = 0, events, 0)),
  sum(iif(request_type = 1, events, 0)),
  sum(iif(request_type = 2, events, 0))
FROM dated_cells
GROUP BY 1, 2;
