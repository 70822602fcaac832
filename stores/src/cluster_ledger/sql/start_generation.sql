-- The start moves as far as the position does, so that what was counted stays in the books.
UPDATE cursors SET start_offset = start_offset + ($1 - position), position = $1
WHERE position < $1
