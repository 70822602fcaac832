-- The counter's row stays locked until the transaction ends, so numbers grow by commit.
WITH next AS (UPDATE change_number SET number = number + 1 RETURNING number)
INSERT INTO changes (number, kind, subject, at) SELECT number, $1, $2, $3 FROM next
