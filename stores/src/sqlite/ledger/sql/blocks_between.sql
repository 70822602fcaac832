-- Blocks that may hold events with offsets in [?1, ?2): from the flush on that has ?1.
SELECT number, body FROM blocks
WHERE number >= coalesce(
    (SELECT flush FROM blocks WHERE number <= ?1 ORDER BY number DESC LIMIT 1),
    ?1
  )
  AND number < ?2
ORDER BY number
