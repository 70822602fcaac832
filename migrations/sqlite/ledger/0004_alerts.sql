-- Alerts, and their outbox: what the transaction that counted an event found out is told to others from
-- here. A row is a part of a plan's limit that a user has reached in a month; it is never removed, and its
-- id is made of what it is about, so the same records raise the same rows again after a loss of power.

CREATE TABLE alerts (
  id BLOB PRIMARY KEY,
  user_id BLOB NOT NULL,
  -- year * 12 + month - 1
  period INTEGER NOT NULL,
  plan TEXT NOT NULL,
  -- tokens, chat_messages, plagiarism_checks, prompts_generated
  meter TEXT NOT NULL,
  percent INTEGER NOT NULL,
  plan_limit INTEGER NOT NULL,
  used INTEGER NOT NULL,
  raised_at INTEGER NOT NULL,
  -- waiting, sent, muted, given_up
  state TEXT NOT NULL DEFAULT 'waiting',
  attempts INTEGER NOT NULL DEFAULT 0,
  -- While it waits: not to be sent before then.
  due_at INTEGER NOT NULL,
  ended_at INTEGER,
  last_error TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX alerts_by_time ON alerts (raised_at, id);
CREATE INDEX alerts_of_users ON alerts (user_id, raised_at, id);
CREATE INDEX alerts_due ON alerts (due_at) WHERE state = 'waiting';
