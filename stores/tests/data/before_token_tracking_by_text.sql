-- The same with ids as text, not all of them UUIDs, few columns, no foreign key between the two
-- tables, and a third one that refers to users.

CREATE TABLE users (
    id         text PRIMARY KEY,
    email      text UNIQUE,
    role       text,
    created_at timestamptz
);
CREATE TABLE subscriptions (
    id         serial PRIMARY KEY,
    user_id    text,
    plan       text,
    status     text NOT NULL,
    expires_at date
);
CREATE TABLE invoices (
    number   integer PRIMARY KEY,
    payer_id text NOT NULL REFERENCES users (id)
);

INSERT INTO users VALUES
    ('5F0C5B1E-3F5E-4D3A-9D3C-0B6F6A1D2E3F', ' upper@example.com ', 'admin',
     '2024-05-01 12:00:00+02'),
    ('clh3x2k9d0000qz8f7g6h5j4k', 'cuid@example.com', NULL, '2024-05-02 12:00:00+00'),
    ('42', '', 'Admin', NULL);
INSERT INTO subscriptions (user_id, plan, status, expires_at) VALUES
    ('clh3x2k9d0000qz8f7g6h5j4k', 'Basic', 'trialing', '2124-01-01'),
    ('42', NULL, 'PAST_DUE', NULL),
    ('gone', 'basic', 'active', NULL);
INSERT INTO invoices VALUES (1, 'clh3x2k9d0000qz8f7g6h5j4k'), (2, '42');
