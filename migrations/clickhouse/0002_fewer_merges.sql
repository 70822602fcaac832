-- In a backlog, merges took ClickHouse almost as much of its processors as inserts. Parts of like size
-- now wait for ten of their kind instead of five, so that a row is written again less often; there are
-- up to twice as many parts to read meanwhile. (ClickHouse 26, MergeTree settings: merge_selector_base)

-- The tables with a row for each event. Summaries stay as they are: every call reads them.
ALTER TABLE token_usage MODIFY SETTING merge_selector_base = 10;

ALTER TABLE token_usage_log MODIFY SETTING merge_selector_base = 10;

ALTER TABLE token_usage_ids MODIFY SETTING merge_selector_base = 10;
