-- The ids of counted events below `indexed_to`: made from the ledger, and made again from it when
-- this file is lost or belongs to another one.
CREATE TABLE ids (
  digest BLOB PRIMARY KEY,
  offset INTEGER NOT NULL,
  content BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE progress (
  ledger BLOB NOT NULL,
  indexed_to INTEGER NOT NULL,
  ids INTEGER NOT NULL
) STRICT;
INSERT INTO progress VALUES (x'', 0, 0);
