UPDATE alerts SET state = 'waiting', ended_at = NULL, due_at = ?1 WHERE state = 'given_up'
