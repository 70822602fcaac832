-- The oldest rows of a ledger that had one for each event.
SELECT
  events.offset, users.id, events.occurred_at, events.log_time, events.request_type,
  models.name, plans.name,
  events.prompt, events.completion, events.cached, events.reasoning,
  events.flags, events.over_hold, events.id_digest, events.content_digest,
  events.event_id, events.metadata, events.received_at
FROM events
LEFT JOIN users ON users.number = events.user
LEFT JOIN names AS models ON models.number = events.model
LEFT JOIN names AS plans ON plans.number = events.plan
ORDER BY events.offset
LIMIT ?1
