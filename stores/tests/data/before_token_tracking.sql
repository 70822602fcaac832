-- The database of an application before token tracking, as a Node program with Prisma leaves it:
-- UUIDs, enums in upper case, times of three digits without a zone (in UTC), checks of its own.
-- Passwords are "password"; grace's hash is of bcrypt.

CREATE TYPE "Role" AS ENUM ('USER', 'ADMIN', 'SUPPORT');
CREATE TYPE "Plan" AS ENUM ('FREE', 'BASIC', 'PROFESSIONAL');

CREATE TABLE users (
    id            uuid NOT NULL DEFAULT gen_random_uuid(),
    name          varchar(100) NOT NULL,
    email         varchar(255) NOT NULL,
    password_hash text,
    role          "Role" NOT NULL DEFAULT 'USER',
    locale        text NOT NULL,
    created_at    timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at    timestamp(3) NOT NULL,
    CONSTRAINT users_pkey PRIMARY KEY (id)
);
CREATE UNIQUE INDEX users_email_unique ON users (email);

CREATE TABLE subscriptions (
    id         uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id    uuid NOT NULL,
    plan       "Plan" NOT NULL DEFAULT 'FREE',
    status     varchar(20) NOT NULL DEFAULT 'active'
        CHECK (status IN ('active', 'cancelled', 'expired')),
    start_date timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    end_date   timestamp(3),
    created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp(3) NOT NULL,
    CONSTRAINT subscriptions_pkey PRIMARY KEY (id),
    CONSTRAINT subscriptions_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id)
        ON UPDATE CASCADE ON DELETE CASCADE
);
CREATE INDEX subscriptions_user_id_idx ON subscriptions (user_id);

INSERT INTO users VALUES
    ('0191b8a0-0000-7000-8000-000000000001', 'Ada Lovelace', 'Ada@Example.com',
     '$argon2id$v=19$m=65536,t=3,p=4$c2l4dGVlbiBieXRlIHNhbA$3OIYOZA6MTbP1zxWLEHISa5FihXKMRY2jfvllnSyVPg',
     'ADMIN', 'en', '2024-02-29 23:59:59.999', '2025-03-30 02:30:00.001'),
    ('5f0c5b1e-3f5e-4d3a-9d3c-0b6f6a1d2e3f', 'Ärger & Söhne', 'Ärger@example.com', NULL,
     'USER', 'de', '2024-05-01 12:00:00', '2024-05-01 12:00:00'),
    ('7c9e6679-7425-40de-944b-e07fc1f90ae7', 'Grace Hopper', 'grace@example.com',
     '$2b$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy',
     'SUPPORT', 'en', '2024-06-01 12:00:00', '2024-06-01 12:00:00');

INSERT INTO subscriptions VALUES
    ('aaaaaaaa-0000-4000-8000-000000000001', '0191b8a0-0000-7000-8000-000000000001', 'BASIC',
     'cancelled', '2024-02-29 23:59:59.999', '2024-12-31 00:00:00', '2024-02-29 23:59:59.999',
     '2024-12-31 00:00:00'),
    ('aaaaaaaa-0000-4000-8000-000000000002', '0191b8a0-0000-7000-8000-000000000001',
     'PROFESSIONAL', 'active', '2024-12-31 00:00:00', '2124-12-31 00:00:00.5',
     '2024-12-31 00:00:00', '2024-12-31 00:00:00'),
    ('aaaaaaaa-0000-4000-8000-000000000003', '5f0c5b1e-3f5e-4d3a-9d3c-0b6f6a1d2e3f', 'BASIC',
     'expired', '2024-05-01 12:00:00', '2024-06-01 12:00:00', '2024-05-01 12:00:00',
     '2024-05-01 12:00:00');
