-- Alerts, and their outbox: what the transaction that counted an event found out is told to others from
-- here. A row is a part of a plan's limit that a user has reached in a month; it is never removed, and its
-- id is made of what it is about.
CREATE TABLE alerts (
    id         uuid PRIMARY KEY,
    user_id    uuid NOT NULL,
    -- year * 12 + month - 1
    period     integer NOT NULL,
    plan       text NOT NULL,
    -- tokens, chat_messages, plagiarism_checks, prompts_generated
    meter      text NOT NULL,
    percent    integer NOT NULL,
    plan_limit bigint NOT NULL,
    used       bigint NOT NULL,
    raised_at  bigint NOT NULL,
    -- waiting, sent, muted, given_up
    state      text NOT NULL DEFAULT 'waiting',
    attempts   integer NOT NULL DEFAULT 0,
    -- While it waits: not to be sent before then.
    due_at     bigint NOT NULL,
    ended_at   bigint,
    last_error text
);

CREATE INDEX alerts_by_time ON alerts (raised_at, id);
CREATE INDEX alerts_of_users ON alerts (user_id, raised_at, id);
CREATE INDEX alerts_due ON alerts (due_at) WHERE state = 'waiting';
