-- Users and subscriptions as tokenmeter needs them, and the rest of the accounts.
--
-- What it takes over, with all its rows: `users (id, email, …)` and `subscriptions (id, user_id,
-- plan, status, …)` with columns named as in 0001. Stop the program that wrote them first.
--   id          UUIDs stay, be they of type uuid or text. A user whose id is none gets a UUID made
--               of it, and the old id as external_id. Other tables' foreign keys follow.
--   times       with time zone, or without and then in UTC. end_date is called expires_at now.
--   role        'admin' in any case stays, everybody else is 'user'.
--   plan        its name in lower case. One that plans.toml lacks counts as free until it has it.
--   status      active, trialing -> active; past_due, unpaid, incomplete -> past_due; canceled,
--               cancelled, expired, inactive, ended -> canceled. Others are refused.
--   email       must be an address, and differ by more than case. Others are refused.
--   password    password_hash stays. Whoever has one that is not Argon2 needs a new password.
-- Whoever has no subscription is on the plan `free` since they were made. Of several subscriptions
-- of a user the one in force, or the latest, stays; the others move to former_subscriptions.
-- Columns that tokenmeter does not know stay and may be empty from now on.

CREATE TYPE tokenmeter_role AS ENUM ('user', 'admin');
CREATE TYPE tokenmeter_subscription_status AS ENUM ('active', 'past_due', 'canceled');
CREATE TYPE tokenmeter_theme AS ENUM ('light', 'dark', 'system');

ALTER TABLE users
    ADD COLUMN IF NOT EXISTS name text,
    ADD COLUMN IF NOT EXISTS password_hash text,
    ADD COLUMN IF NOT EXISTS role text DEFAULT 'user',
    ADD COLUMN IF NOT EXISTS created_at timestamptz DEFAULT now(),
    ADD COLUMN IF NOT EXISTS updated_at timestamptz DEFAULT now(),
    -- What is compared: the address in lower case.
    ADD COLUMN email_key text,
    -- A service's own name for the user.
    ADD COLUMN external_id text,
    ADD COLUMN locked boolean NOT NULL DEFAULT false,
    -- Name, address and external id in lower case on a line each, for the search of the
    -- administration.
    ADD COLUMN search_text text NOT NULL DEFAULT '',
    -- The row stays, so that the id is never given again.
    ADD COLUMN erased_at timestamptz;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'subscriptions'::regclass
               AND attname = 'end_date' AND NOT attisdropped) THEN
        ALTER TABLE subscriptions RENAME COLUMN end_date TO expires_at;
    END IF;
END $$;

ALTER TABLE subscriptions
    ADD COLUMN IF NOT EXISTS start_date timestamptz DEFAULT now(),
    ADD COLUMN IF NOT EXISTS expires_at timestamptz,
    ADD COLUMN IF NOT EXISTS auto_renew boolean,
    ADD COLUMN IF NOT EXISTS stripe_customer_id text,
    ADD COLUMN IF NOT EXISTS stripe_subscription_id text,
    ADD COLUMN IF NOT EXISTS payment_method_id text,
    ADD COLUMN IF NOT EXISTS created_at timestamptz DEFAULT now(),
    ADD COLUMN IF NOT EXISTS updated_at timestamptz DEFAULT now(),
    -- Grows with each change: older terms never replace newer ones.
    ADD COLUMN version bigint NOT NULL DEFAULT 1;

-- Functions of this step alone. --------------------------------------------------------------------

CREATE FUNCTION pg_temp.is_uuid(id text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT id ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
$$;

-- The same for the same id, in every table: its MD5 as a UUID of version 8.
CREATE FUNCTION pg_temp.uuid_of(id text) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN pg_temp.is_uuid(id) THEN id::uuid
        ELSE overlay(overlay(md5(id) PLACING '8' FROM 13) PLACING 'a' FROM 17)::uuid
    END
$$;

-- In lower case beyond ASCII too, whatever the locale of the database, where Postgres has ICU.
DO $$
DECLARE
    unicode text := (SELECT ' COLLATE "und-x-icu"' FROM pg_collation WHERE collname = 'und-x-icu');
BEGIN
    EXECUTE 'CREATE FUNCTION pg_temp.lower_case(word text) RETURNS text LANGUAGE sql IMMUTABLE '
        || 'AS ''SELECT lower(word' || coalesce(unicode, '') || ')''';
END $$;

-- Gives a column another type; made_by says how, with % for the old value. Its default goes.
CREATE FUNCTION pg_temp.retype(place regclass, column_name name, new_type text, made_by text)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ALTER COLUMN %I DROP IDENTITY IF EXISTS', place, column_name);
    EXECUTE format('ALTER TABLE %s ALTER COLUMN %I DROP DEFAULT', place, column_name);
    EXECUTE format('ALTER TABLE %s ALTER COLUMN %I TYPE %s USING %s', place, column_name, new_type,
                   replace(made_by, '%', quote_ident(column_name)));
END $$;

-- The same for a key and the columns of all tables that refer to it.
CREATE FUNCTION pg_temp.retype_key(owner regclass, new_type text, made_by text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    reference record;
BEGIN
    CREATE TEMPORARY TABLE kept ON COMMIT DROP AS
        SELECT c.conname, c.conrelid::regclass AS place, a.attname,
               pg_get_constraintdef(c.oid) AS definition
        FROM pg_constraint c
        JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
        WHERE c.contype = 'f' AND c.confrelid = owner AND cardinality(c.conkey) = 1;
    FOR reference IN SELECT * FROM kept LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', reference.place, reference.conname);
    END LOOP;
    PERFORM pg_temp.retype(owner, 'id', new_type, made_by);
    FOR reference IN SELECT * FROM kept LOOP
        PERFORM pg_temp.retype(reference.place, reference.attname, new_type, made_by);
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I %s', reference.place, reference.conname,
                       reference.definition);
    END LOOP;
    DROP TABLE kept;
END $$;

-- Refuses the whole step when anything is faulty.
CREATE FUNCTION pg_temp.refuse(faulty text[], why text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF cardinality(faulty) > 0 THEN
        RAISE EXCEPTION '%: %', why, array_to_string(faulty[1:5], ', ')
            || CASE WHEN cardinality(faulty) > 5 THEN ', …' ELSE '' END;
    END IF;
END $$;

-- Rules on values of the old program, and columns that only it filled, would stand in the way. -----

DO $$
DECLARE
    old record;
BEGIN
    FOR old IN
        SELECT conrelid::regclass AS place, conname FROM pg_constraint
        WHERE conrelid IN ('users'::regclass, 'subscriptions'::regclass) AND contype = 'c'
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', old.place, old.conname);
    END LOOP;
    FOR old IN
        SELECT attrelid::regclass AS place, attname FROM pg_attribute
        WHERE attrelid IN ('users'::regclass, 'subscriptions'::regclass) AND attnum > 0
            AND NOT attisdropped AND attnotnull AND NOT atthasdef AND attidentity = ''
            AND attname <> 'id'
    LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I DROP NOT NULL', old.place, old.attname);
    END LOOP;
END $$;

-- Users --------------------------------------------------------------------------------------------

UPDATE users SET external_id = id::text WHERE NOT pg_temp.is_uuid(id::text);
-- Without a foreign key the column would not be found by it.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = 'subscriptions'::regclass
                   AND confrelid = 'users'::regclass AND contype = 'f') THEN
        PERFORM pg_temp.retype('subscriptions', 'user_id', 'uuid', 'pg_temp.uuid_of(%::text)');
    END IF;
END $$;
DO $$
BEGIN
    PERFORM pg_temp.retype_key('users', 'uuid', 'pg_temp.uuid_of(%::text)');
    PERFORM pg_temp.retype_key('subscriptions', 'text', '%::text');
    PERFORM pg_temp.retype(place, column_name, 'timestamptz', '%::timestamp AT TIME ZONE ''UTC''')
    FROM (VALUES
        ('users'::regclass, 'created_at'), ('users', 'updated_at'),
        ('subscriptions', 'start_date'), ('subscriptions', 'expires_at'),
        ('subscriptions', 'created_at'), ('subscriptions', 'updated_at')
    ) AS times (place, column_name)
    JOIN pg_attribute a ON a.attrelid = place AND a.attname = column_name
    WHERE a.atttypid <> 'timestamptz'::regtype OR a.atttypmod <> -1;
    PERFORM pg_temp.retype('users', 'name', 'text', '%::text');
    PERFORM pg_temp.retype('users', 'email', 'text', 'nullif(btrim(%::text), '''')');
    PERFORM pg_temp.retype('users', 'password_hash', 'text', 'nullif(%::text, '''')');
    PERFORM pg_temp.retype('users', 'role', 'tokenmeter_role',
        'CASE lower(%::text) WHEN ''admin'' THEN ''admin'' ELSE ''user'' END::tokenmeter_role');
    PERFORM pg_temp.refuse(array_agg(id::text), 'these users have an e-mail that is no address')
    FROM users
    WHERE email !~ '^[^@[:space:][:cntrl:]]+@[^@[:space:][:cntrl:]]+$'
        OR octet_length(email) > 254;
    PERFORM pg_temp.refuse(array_agg(key), 'these addresses differ only by case, change one')
    FROM (SELECT pg_temp.lower_case(email) AS key FROM users GROUP BY 1 HAVING count(*) > 1) twice
    WHERE key IS NOT NULL;
END $$;

UPDATE users
SET created_at = coalesce(created_at, updated_at, now()),
    updated_at = coalesce(updated_at, created_at, now()),
    email_key = pg_temp.lower_case(email),
    search_text = pg_temp.lower_case(
        concat_ws(E'\n', coalesce(name, ''), coalesce(email, ''), coalesce(external_id, '')));
ALTER TABLE users
    ALTER COLUMN created_at SET NOT NULL,
    ALTER COLUMN created_at SET DEFAULT now(),
    ALTER COLUMN updated_at SET NOT NULL,
    ALTER COLUMN updated_at SET DEFAULT now(),
    ALTER COLUMN role SET NOT NULL,
    ALTER COLUMN role SET DEFAULT 'user',
    ADD CONSTRAINT users_email_key_is_taken_once UNIQUE (email_key),
    ADD CONSTRAINT users_external_id_is_taken_once UNIQUE (external_id);

-- Subscriptions ------------------------------------------------------------------------------------

DO $$
BEGIN
    PERFORM pg_temp.refuse(array_agg(DISTINCT status::text), 'subscriptions have an unknown status')
    FROM subscriptions
    WHERE lower(status::text) NOT IN ('active', 'trialing', 'past_due', 'unpaid', 'incomplete',
        'canceled', 'cancelled', 'expired', 'inactive', 'ended');
    PERFORM pg_temp.retype('subscriptions', 'status', 'tokenmeter_subscription_status',
        'CASE WHEN lower(%::text) IN (''active'', ''trialing'') THEN ''active'' '
        || 'WHEN lower(%::text) IN (''past_due'', ''unpaid'', ''incomplete'') THEN ''past_due'' '
        || 'ELSE ''canceled'' END::tokenmeter_subscription_status');
    PERFORM pg_temp.retype('subscriptions', 'plan', 'text', 'coalesce(lower(%::text), ''free'')');
END $$;
UPDATE subscriptions
SET created_at = coalesce(created_at, start_date, now()),
    updated_at = coalesce(updated_at, created_at, start_date, now()),
    start_date = coalesce(start_date, created_at, now()),
    auto_renew = coalesce(auto_renew, false);

-- What users had besides the subscription that stays, and what belonged to nobody. Not read.
CREATE TABLE former_subscriptions (LIKE subscriptions);
WITH ranked AS (
    SELECT s.id, u.id IS NULL OR row_number() OVER (
        PARTITION BY s.user_id
        ORDER BY s.status = 'active' AND coalesce(s.expires_at > now(), true) DESC,
            s.start_date DESC, s.id DESC
    ) > 1 AS is_former
    FROM subscriptions s LEFT JOIN users u ON u.id = s.user_id
), moved AS (
    DELETE FROM subscriptions s USING ranked WHERE s.id = ranked.id AND is_former RETURNING s.*
)
INSERT INTO former_subscriptions SELECT * FROM moved;

INSERT INTO subscriptions
    (id, user_id, plan, status, start_date, auto_renew, created_at, updated_at)
SELECT 'sub_' || gen_random_uuid(), id, 'free', 'active', created_at, false, created_at, created_at
FROM users
WHERE NOT EXISTS (SELECT FROM subscriptions WHERE user_id = users.id);

ALTER TABLE subscriptions
    ALTER COLUMN user_id SET NOT NULL,
    ALTER COLUMN plan SET NOT NULL,
    ALTER COLUMN status SET NOT NULL,
    ALTER COLUMN start_date SET NOT NULL,
    ALTER COLUMN auto_renew SET NOT NULL,
    ALTER COLUMN created_at SET NOT NULL,
    ALTER COLUMN updated_at SET NOT NULL,
    ADD CONSTRAINT subscriptions_one_of_a_user UNIQUE (user_id);
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = 'subscriptions'::regclass
                   AND confrelid = 'users'::regclass AND contype = 'f') THEN
        ALTER TABLE subscriptions ADD FOREIGN KEY (user_id) REFERENCES users (id);
    END IF;
END $$;

-- The rest -----------------------------------------------------------------------------------------

-- Made with defaults when first looked at.
CREATE TABLE preferences (
    user_id       uuid PRIMARY KEY REFERENCES users (id),
    id            text NOT NULL,
    theme         tokenmeter_theme NOT NULL,
    notifications boolean NOT NULL,
    default_model text NOT NULL,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL
);

-- Credentials of services: never the secret, its SHA-256. Rows stay when they are revoked.
CREATE TABLE api_keys (
    id         text PRIMARY KEY,
    name       text NOT NULL,
    -- Bits of the domain's scopes.
    scopes     smallint NOT NULL,
    digest     bytea NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz
);

-- A family is all that came from one login; used tokens stay until they expire, so that a second
-- use is seen.
CREATE TABLE refresh_tokens (
    digest     bytea PRIMARY KEY,
    family     bytea NOT NULL,
    user_id    uuid NOT NULL REFERENCES users (id),
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);
CREATE INDEX refresh_tokens_by_family ON refresh_tokens (family);
CREATE INDEX refresh_tokens_by_user ON refresh_tokens (user_id);
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_at);

-- Wrong passwords: 'account:' and the compared form of the address, or 'client:' and the address
-- of the client. Let go after a day.
CREATE TABLE login_attempts (
    number  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject text NOT NULL,
    at      timestamptz NOT NULL
);
CREATE INDEX login_attempts_by_subject ON login_attempts (subject, at);
CREATE INDEX login_attempts_by_time ON login_attempts (at);

-- The keys that sign access tokens, the only secrets that are kept as they are.
CREATE TABLE signing_keys (
    id         text PRIMARY KEY,
    pkcs8      bytea NOT NULL,
    public     bytea NOT NULL,
    created_at timestamptz NOT NULL
);

-- What every process must hear of. A number is taken from change_number, whose row stays locked
-- until the transaction ends: so numbers grow by commit, and who has read up to one has missed
-- none before it. (A sequence would not do: its numbers are taken in one order and committed in
-- another.)
CREATE TABLE changes (
    number  bigint PRIMARY KEY,
    kind    text NOT NULL,
    -- A user's id, or an API key's.
    subject text NOT NULL,
    at      timestamptz NOT NULL
);
CREATE TABLE change_number (
    the_only boolean PRIMARY KEY DEFAULT true CHECK (the_only),
    number   bigint NOT NULL
);
INSERT INTO change_number (number) VALUES (0);

-- Under which name each partition's counter serves. What another one lets in is not published.
CREATE TABLE epochs (
    log_partition integer PRIMARY KEY,
    incarnation   text NOT NULL,
    -- 64 bits, drawn at random; the sign means nothing.
    nonce         bigint NOT NULL,
    announced_at  timestamptz NOT NULL DEFAULT now()
);
