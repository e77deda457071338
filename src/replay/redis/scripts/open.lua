-- Makes the log of a partition if it is not there, and its next generation if the server is another one.
--
-- KEYS: log
-- ARGV: 1 to 4 as for appending
-- Returns the log.
return {open_log().text}
