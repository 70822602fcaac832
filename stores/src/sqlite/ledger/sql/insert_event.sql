INSERT INTO events (
  offset, user, occurred_at, received_at, log_time, request_type, model, plan,
  prompt, completion, cached, reasoning, flags, over_hold,
  id_digest, content_digest, event_id, metadata
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
