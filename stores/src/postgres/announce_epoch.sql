-- A row that was there has been written by another transaction before: then it has an xmax.
INSERT INTO epochs (log_partition, incarnation, nonce) VALUES ($1, $2, $3)
ON CONFLICT (log_partition) DO UPDATE
SET incarnation = excluded.incarnation, nonce = excluded.nonce, announced_at = now()
RETURNING xmax = 0
