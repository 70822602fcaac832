-- accounts.db: who there is, what they may do, and their credentials (hashes only, except the
-- key that signs access tokens). Times are milliseconds since the Unix epoch.

CREATE TABLE users (
    id          BLOB PRIMARY KEY,
    name        TEXT,
    email       TEXT,
    -- What is compared: the address in lower case.
    email_key   TEXT UNIQUE,
    external_id TEXT UNIQUE,
    role        TEXT NOT NULL,
    locked      INTEGER NOT NULL DEFAULT 0,
    password    TEXT,
    -- Name, address and external id in lower case, for the search of the administration.
    search_text TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    -- The row stays, so that the id is never given again.
    erased_at   INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE subscriptions (
    user_id                BLOB PRIMARY KEY REFERENCES users (id),
    id                     TEXT NOT NULL,
    plan                   TEXT NOT NULL,
    status                 TEXT NOT NULL,
    start_date             INTEGER NOT NULL,
    expires_at             INTEGER,
    auto_renew             INTEGER NOT NULL,
    stripe_customer_id     TEXT,
    stripe_subscription_id TEXT,
    payment_method_id      TEXT,
    created_at             INTEGER NOT NULL,
    updated_at             INTEGER NOT NULL,
    version                INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE preferences (
    user_id       BLOB PRIMARY KEY REFERENCES users (id),
    id            TEXT NOT NULL,
    theme         TEXT NOT NULL,
    notifications INTEGER NOT NULL,
    default_model TEXT NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE api_keys (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    scopes     INTEGER NOT NULL,
    digest     BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;

-- A family is all that came from one login; used tokens stay until they expire, so that a second
-- use is seen.
CREATE TABLE refresh_tokens (
    digest     BLOB PRIMARY KEY,
    family     BLOB NOT NULL,
    user_id    BLOB NOT NULL REFERENCES users (id),
    expires_at INTEGER NOT NULL,
    used_at    INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX refresh_tokens_by_family ON refresh_tokens (family);
CREATE INDEX refresh_tokens_by_user ON refresh_tokens (user_id);
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_at);

-- Wrong passwords: 'account:' and the compared form of the address, or 'client:' and the address
-- of the client.
CREATE TABLE login_attempts (
    subject TEXT NOT NULL,
    at      INTEGER NOT NULL
) STRICT;
CREATE INDEX login_attempts_by_subject ON login_attempts (subject, at);
CREATE INDEX login_attempts_by_time ON login_attempts (at);

CREATE TABLE signing_keys (
    id         TEXT PRIMARY KEY,
    pkcs8      BLOB NOT NULL,
    public     BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What every process must hear of. Numbers are given under the write lock, so they grow by commit.
CREATE TABLE changes (
    number  INTEGER PRIMARY KEY AUTOINCREMENT,
    kind    TEXT NOT NULL,
    -- A user's id (16 bytes) or an API key's (its text).
    subject BLOB NOT NULL,
    at      INTEGER NOT NULL
) STRICT;
