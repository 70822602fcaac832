-- The single node's ledger. Everything in it follows from the event log and is committed together
-- with the cursor. STRICT makes a sum that leaves 64 bits an error instead of a float.

-- Which ledger this is: the index of ids beside it must belong to the same one.
CREATE TABLE ledger (identity BLOB NOT NULL) STRICT;
INSERT INTO ledger VALUES (randomblob(16));

-- How far each partition is counted, and what became of its records.
CREATE TABLE cursors (
  partition INTEGER PRIMARY KEY,
  start INTEGER NOT NULL,
  position INTEGER NOT NULL,
  log_time INTEGER NOT NULL,
  counted INTEGER NOT NULL,
  duplicates INTEGER NOT NULL,
  dead_letters INTEGER NOT NULL
) STRICT;

-- Short numbers for what every row repeats.
CREATE TABLE users (number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE) STRICT;
CREATE TABLE names (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;

-- Users whose metadata was erased, for ever: events of theirs that the log still held then, or
-- takes again, are stored without.
CREATE TABLE erased_users (id BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;

-- Counted events. Times are milliseconds since 1970; request types are 0 chat, 1 plagiarism,
-- 2 prompt_generation.
CREATE TABLE events (
  offset INTEGER PRIMARY KEY,
  user INTEGER NOT NULL,
  occurred_at INTEGER NOT NULL,
  received_at INTEGER NOT NULL,
  log_time INTEGER NOT NULL,
  request_type INTEGER NOT NULL,
  model INTEGER NOT NULL,
  plan INTEGER NOT NULL,
  prompt INTEGER NOT NULL,
  completion INTEGER NOT NULL,
  cached INTEGER NOT NULL,
  reasoning INTEGER NOT NULL,
  flags INTEGER NOT NULL,
  over_hold INTEGER NOT NULL,
  id_digest BLOB NOT NULL,
  content_digest BLOB NOT NULL,
  event_id TEXT NOT NULL,
  metadata TEXT
) STRICT;

-- A user's history, newest first; the offset ends every entry by itself.
CREATE INDEX events_by_user ON events (user, occurred_at);

-- The day stands first: a flush touches the rows of today, which lie together.
CREATE TABLE daily (
  day INTEGER NOT NULL,
  user INTEGER NOT NULL,
  request_type INTEGER NOT NULL,
  model INTEGER NOT NULL,
  plan INTEGER NOT NULL,
  events INTEGER NOT NULL,
  prompt INTEGER NOT NULL,
  completion INTEGER NOT NULL,
  cached INTEGER NOT NULL,
  reasoning INTEGER NOT NULL,
  version INTEGER NOT NULL,
  PRIMARY KEY (day, user, request_type, model, plan)
) STRICT, WITHOUT ROWID;

CREATE TABLE hourly (
  hour INTEGER NOT NULL,
  request_type INTEGER NOT NULL,
  model INTEGER NOT NULL,
  plan INTEGER NOT NULL,
  events INTEGER NOT NULL,
  prompt INTEGER NOT NULL,
  completion INTEGER NOT NULL,
  cached INTEGER NOT NULL,
  reasoning INTEGER NOT NULL,
  version INTEGER NOT NULL,
  PRIMARY KEY (hour, request_type, model, plan)
) STRICT, WITHOUT ROWID;

-- What limits are checked against. A period is year * 12 + month - 1.
CREATE TABLE statistics (
  user INTEGER NOT NULL,
  period INTEGER NOT NULL,
  tokens INTEGER NOT NULL,
  chat INTEGER NOT NULL,
  plagiarism INTEGER NOT NULL,
  prompt_generation INTEGER NOT NULL,
  PRIMARY KEY (user, period)
) STRICT, WITHOUT ROWID;

CREATE TABLE dead_letters (
  partition INTEGER NOT NULL,
  offset INTEGER NOT NULL,
  log_time INTEGER NOT NULL,
  reason TEXT NOT NULL,
  detail TEXT NOT NULL,
  bytes BLOB NOT NULL,
  replayed_at INTEGER,
  PRIMARY KEY (partition, offset)
) STRICT, WITHOUT ROWID;

-- Events with the buckets that they are summed in; division rounds down before 1970 too.
CREATE VIEW dated_events AS
SELECT
  *,
  (occurred_at - (occurred_at % 86400000 + 86400000) % 86400000) / 86400000 AS day,
  (occurred_at - (occurred_at % 3600000 + 3600000) % 3600000) / 3600000 AS hour
FROM events;
