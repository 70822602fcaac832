-- Records that the log took too late to count, and records that hold no event. The single node's own
-- log has neither; with them the books are the same as the cluster's.
ALTER TABLE cursors ADD COLUMN void INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN ticks INTEGER NOT NULL DEFAULT 0;
