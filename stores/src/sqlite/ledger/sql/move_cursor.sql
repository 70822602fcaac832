-- Compare and set: no row comes back when the cursor is not at ?2.
UPDATE cursors SET
  position = ?3,
  log_time = max(log_time, ?4),
  counted = counted + ?5,
  duplicates = duplicates + ?6,
  dead_letters = dead_letters + ?7,
  void = void + ?8,
  ticks = ticks + ?9
WHERE partition = ?1 AND position = ?2
RETURNING log_time
