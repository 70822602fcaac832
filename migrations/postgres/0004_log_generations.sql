-- Which Kafka topics have been the event log, and how many partitions each has. The newest is the
-- one that is counted; its number stands in the high bits of every offset that was stored from it.
-- A row is never changed or removed.
CREATE TABLE log_generations (
    number     smallint PRIMARY KEY,
    topic      text NOT NULL,
    -- What tells a topic from one that was made anew under its name.
    topic_id   text NOT NULL,
    partitions integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now()
);
