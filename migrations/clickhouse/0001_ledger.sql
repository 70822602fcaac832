-- The cluster's counted events and their summaries. Everything here follows from the event log; what
-- is counted stands in Postgres, and rows at or above its cursor are not counted yet. An insert may be
-- repeated: the same rows replace themselves. Times are UTC, days and hours count from 1970.
--
-- A confirmed insert must survive a kill and a loss of power, so that the cursor never stands above
-- what is stored: hence the fsyncs. Nothing is partitioned by time: events come from any month.

-- One row for each counted event: the source of summaries and statistics. A row never changes, but
-- for `metadata`, which an erasure empties.
CREATE TABLE IF NOT EXISTS token_usage
(
    user_id           UUID,
    occurred_at       DateTime64(3, 'UTC'),
    -- Its place in the event log, unique for each user too; a generation stands in the high 16 bits.
    log_offset        UInt64,
    log_partition     UInt32,
    log_time          DateTime64(3, 'UTC'),
    received_at       DateTime64(3, 'UTC'),
    event_id          String,
    request_type      Enum8('chat' = 0, 'plagiarism' = 1, 'prompt_generation' = 2),
    model             LowCardinality(String),
    plan              LowCardinality(String),
    prompt_tokens     UInt32,
    completion_tokens UInt32,
    cached_tokens     UInt32,
    reasoning_tokens  UInt32,
    -- 1 over_limit, 2 over_hold, 4 unmetered, 8 replayed.
    flags             UInt8,
    over_hold         UInt64,
    id_digest         FixedString(16) CODEC(NONE),
    content_digest    FixedString(8) CODEC(NONE),
    -- JSON, or nothing.
    metadata          String,
    INDEX by_time occurred_at TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree
ORDER BY (user_id, occurred_at, log_offset)
SETTINGS index_granularity = 4096, fsync_after_insert = 1, fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1;

-- The same events in the order of the log: who takes a partition over reads the latest ids here.
CREATE TABLE IF NOT EXISTS token_usage_log
(
    log_partition  UInt32,
    log_offset     UInt64,
    id_digest      FixedString(16) CODEC(NONE),
    content_digest FixedString(8) CODEC(NONE),
    log_time       DateTime64(3, 'UTC'),
    INDEX by_time log_time TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree
ORDER BY (log_partition, log_offset)
SETTINGS index_granularity = 8192, fsync_after_insert = 1, fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1;

-- And in the order of their ids: a look-up reads a few hundred rows around each id, whatever the
-- number of partitions was when it was counted.
CREATE TABLE IF NOT EXISTS token_usage_ids
(
    id_digest      FixedString(16) CODEC(NONE),
    log_offset     UInt64,
    log_partition  UInt32,
    content_digest FixedString(8) CODEC(NONE),
    log_time       DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (id_digest, log_offset, log_partition)
SETTINGS index_granularity = 256, min_compress_block_size = 4096, max_compress_block_size = 16384,
    fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

-- Fills it with each insert into token_usage_log, which is confirmed when both are stored.
CREATE MATERIALIZED VIEW IF NOT EXISTS token_usage_ids_from_log TO token_usage_ids AS
SELECT id_digest, log_offset, log_partition, content_digest, log_time FROM token_usage_log;

-- What each user has used on each day, over all events below `version`: absolute, so that the row
-- with the largest version is right by itself. The day stands first: a flush touches today's rows.
CREATE TABLE IF NOT EXISTS token_usage_summary
(
    day               Int32,
    user_id           UUID,
    request_type      Enum8('chat' = 0, 'plagiarism' = 1, 'prompt_generation' = 2),
    model             LowCardinality(String),
    plan              LowCardinality(String),
    events            UInt64,
    prompt_tokens     UInt64,
    completion_tokens UInt64,
    cached_tokens     UInt64,
    reasoning_tokens  UInt64,
    version           UInt64,
    date              Date32 ALIAS toDate32(day)
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (day, user_id, request_type, model, plan)
SETTINGS index_granularity = 512, fsync_after_insert = 1, fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1;

-- What everybody has used in each hour, kept for each partition of the log and summed when read.
CREATE TABLE IF NOT EXISTS token_usage_hourly
(
    hour              Int32,
    log_partition     UInt32,
    request_type      Enum8('chat' = 0, 'plagiarism' = 1, 'prompt_generation' = 2),
    model             LowCardinality(String),
    plan              LowCardinality(String),
    events            UInt64,
    prompt_tokens     UInt64,
    completion_tokens UInt64,
    cached_tokens     UInt64,
    reasoning_tokens  UInt64,
    version           UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (hour, log_partition, request_type, model, plan)
SETTINGS index_granularity = 1024, fsync_after_insert = 1, fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1;
