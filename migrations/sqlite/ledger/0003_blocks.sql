-- Counted events in blocks instead of rows of their own, and users' histories in sorted runs instead
-- of an index: both are written in large pieces. The program moves what `events` holds, and drops it.
DROP VIEW dated_events;
DROP INDEX events_by_user;

-- Events that were counted in one flush, by user: up to some hundred.
CREATE TABLE blocks (
  -- The first offset of the flush, and one more for each further block of it.
  number INTEGER PRIMARY KEY,
  -- The first offset of the flush, which may be that of a record that was not counted.
  flush INTEGER NOT NULL,
  -- When its events occurred, in ms since 1970: both inclusive.
  earliest INTEGER NOT NULL,
  latest INTEGER NOT NULL,
  -- See the program's `ledger::events::block`.
  body BLOB NOT NULL
) STRICT;

-- For the edges of analytics' spans.
CREATE INDEX blocks_by_time ON blocks (latest, earliest);

-- Entries of histories that were added together, or merged from such runs.
CREATE TABLE runs (
  number INTEGER PRIMARY KEY,
  entries INTEGER NOT NULL,
  -- The run that takes over its entries.
  merging_into INTEGER REFERENCES runs
) STRICT;

-- A piece of one user's history in one run: the key is that of its first entry, the oldest.
CREATE TABLE stretches (
  run INTEGER NOT NULL,
  user INTEGER NOT NULL,
  occurred_at INTEGER NOT NULL,
  offset INTEGER NOT NULL,
  -- See the program's `ledger::events::histories::stretch`.
  entries BLOB NOT NULL,
  PRIMARY KEY (run, user, occurred_at, offset)
) STRICT, WITHOUT ROWID;
