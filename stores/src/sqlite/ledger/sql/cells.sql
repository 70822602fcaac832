-- The sums of stored events that were added up together; the same place may stand in several rows.
CREATE TEMP TABLE cells (
  hour INTEGER NOT NULL,
  user INTEGER NOT NULL,
  request_type INTEGER NOT NULL,
  model INTEGER NOT NULL,
  plan INTEGER NOT NULL,
  events INTEGER NOT NULL,
  prompt INTEGER NOT NULL,
  completion INTEGER NOT NULL,
  cached INTEGER NOT NULL,
  reasoning INTEGER NOT NULL
) STRICT;

-- Division rounds down before 1970 too.
CREATE TEMP VIEW dated_cells AS
SELECT *, (hour - (hour % 24 + 24) % 24) / 24 AS day
FROM cells;
