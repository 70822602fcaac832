-- The state before token tracking: an application that has users and their subscriptions. Where it
-- is there already, this step finds its two tables and leaves them as they are; an empty database
-- gets them, so that 0002 takes both the same way. What such a database may look like, and what
-- becomes of it, stands at the head of 0002.

CREATE TABLE IF NOT EXISTS users (
    id            uuid PRIMARY KEY,
    name          text,
    email         text,
    password_hash text,
    role          text NOT NULL DEFAULT 'user',
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS subscriptions (
    id         text PRIMARY KEY,
    user_id    uuid NOT NULL REFERENCES users (id),
    plan       text NOT NULL DEFAULT 'free',
    status     text NOT NULL DEFAULT 'active',
    start_date timestamptz NOT NULL DEFAULT now(),
    end_date   timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
