-- The event log: admitted events in the order in which they became durable.
--
-- A segment is what one commit took, cut at some hundred KiB: offsets first_offset to
-- first_offset + records - 1, all with the same log time (ms since 1970, never smaller than that of
-- the segment before). The body holds the records, each after its length as a varint; what they
-- are is in stores/proto/usage_event.proto. Segments follow each other without a gap. The last one
-- is never deleted: it tells where the log ends.
CREATE TABLE segments (
    first_offset INTEGER PRIMARY KEY CHECK (first_offset >= 0),
    records      INTEGER NOT NULL CHECK (records > 0),
    log_time     INTEGER NOT NULL,
    body         BLOB NOT NULL
) STRICT;
