-- Rows of one user below the position (?2, ?3), newest first. The index gives the order, so a page
-- costs its rows, wherever it stands.
SELECT
  events.offset, events.occurred_at, events.received_at, events.request_type, names.name,
  events.prompt, events.completion, events.cached, events.reasoning, events.flags,
  events.event_id, events.metadata
FROM events
JOIN names ON names.number = events.model
WHERE events.user = (SELECT number FROM users WHERE id = ?1)
  AND (events.occurred_at, events.offset) < (?2, ?3)
  AND events.occurred_at >= ?4
  AND (?5 IS NULL OR events.model = ?5)
  AND (?6 IS NULL OR events.request_type = ?6)
ORDER BY events.occurred_at DESC, events.offset DESC
LIMIT ?7
