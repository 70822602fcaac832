-- The newest piece of user ?2's history in run ?1 that begins before (?3, ?4).
SELECT occurred_at, offset, entries
FROM stretches
WHERE run = ?1 AND user = ?2 AND (occurred_at, offset) < (?3, ?4)
ORDER BY occurred_at DESC, offset DESC
LIMIT 1
