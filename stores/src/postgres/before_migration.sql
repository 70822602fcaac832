-- A step may rewrite a large table, and others wait for its lock as long. What it finds in place
-- already is no news.
SET LOCAL statement_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = 0;
SET LOCAL client_min_messages = warning;
