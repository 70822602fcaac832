-- The ledger's half that must change together: how far each partition of the event log is counted,
-- and what limits are checked against. The events themselves stand in ClickHouse. Times are
-- milliseconds since 1970-01-01T00:00:00Z, as the event log has them.

-- How far each partition is counted, and what became of its records:
-- position - start_offset = counted + duplicates + dead_letters + void + ticks. A commit moves
-- position from where it knew it to stand, or changes nothing.
CREATE TABLE cursors (
    log_partition integer PRIMARY KEY,
    start_offset  bigint NOT NULL,
    position      bigint NOT NULL,
    -- The largest log time below position.
    log_time      bigint NOT NULL,
    -- How long counted ids are remembered from position on, in milliseconds of log time.
    horizon       bigint NOT NULL,
    counted       bigint NOT NULL DEFAULT 0,
    duplicates    bigint NOT NULL DEFAULT 0,
    dead_letters  bigint NOT NULL DEFAULT 0,
    void          bigint NOT NULL DEFAULT 0,
    ticks         bigint NOT NULL DEFAULT 0
);

-- What each user has used in each month: the sums of their events below the cursor of their
-- partition. A period is year * 12 + month - 1.
CREATE TABLE usage_statistics (
    user_id           uuid NOT NULL,
    period            integer NOT NULL,
    tokens            bigint NOT NULL,
    chat              bigint NOT NULL,
    plagiarism        bigint NOT NULL,
    prompt_generation bigint NOT NULL,
    PRIMARY KEY (user_id, period)
) WITH (fillfactor = 70);

-- Records that were set aside. Never removed; an erasure takes the metadata out of the bytes.
CREATE TABLE dead_letters (
    log_partition integer NOT NULL,
    log_offset    bigint NOT NULL,
    log_time      bigint NOT NULL,
    reason        text NOT NULL,
    detail        text NOT NULL,
    bytes         bytea NOT NULL,
    replayed_at   bigint,
    PRIMARY KEY (log_partition, log_offset)
);

-- Users whose metadata was erased, for ever: events of theirs that the log still held then, or takes
-- again, are stored without.
CREATE TABLE erased_users (user_id uuid PRIMARY KEY);
