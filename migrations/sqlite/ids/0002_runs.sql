-- Ids in runs instead of one B-tree, in which each id has a random place: once that is much larger than
-- what is added at a time, every id costs a page or two. The index is made again from the ledger.
DROP TABLE ids;
UPDATE progress SET indexed_to = 0, ids = 0;

-- Ids that were added together, or merged from such runs.
CREATE TABLE runs (
  number INTEGER PRIMARY KEY,
  ids INTEGER NOT NULL,
  -- Its buckets are told apart by so many leading bits of the digests.
  bits INTEGER NOT NULL,
  -- The run that takes over its buckets, one after the other.
  merging_into INTEGER REFERENCES runs
) STRICT;

CREATE TABLE buckets (
  -- The run's number * 2^36 + the leading bits.
  place INTEGER PRIMARY KEY,
  -- Sorted; 32 bytes each: digest, offset (big-endian), digest of the content.
  ids BLOB NOT NULL
) STRICT;
