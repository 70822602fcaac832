-- Whether a log is being left, or was: nobody may put an event into it any more. Whoever records while the
-- quota counter is away asks; for everybody else the counter's epochs are closed.
ALTER TABLE log_generations ADD COLUMN is_left boolean NOT NULL DEFAULT false;
UPDATE log_generations SET is_left = true
WHERE number < (SELECT max(number) FROM log_generations);
