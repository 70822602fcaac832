INSERT INTO hourly VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
  events = events + excluded.events,
  prompt = prompt + excluded.prompt,
  completion = completion + excluded.completion,
  cached = cached + excluded.cached,
  reasoning = reasoning + excluded.reasoning,
  version = excluded.version
