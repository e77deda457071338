-- Drops what is too old of a stream, and the stream once it has been idle for long.
--
-- KEYS: log, streams, stream
-- ARGV: 1 to 5 as for appending, 6 window in ms, 7 time in ms before which a stream is forgotten, 8 ms until it expires
-- Returns the log, bytes and messages that are left, and the time of the first.
local log = open_log()
local s = stand()
if not s then return {log.text, '0', '0', '0'} end
if s.is_gone or s.time < tonumber(ARGV[7]) then
  if s.head > log.base then
    log.base = s.head
    save_log(log)
  end
  redis.call('UNLINK', KEYS[3])
  redis.call('HDEL', KEYS[2], ARGV[5])
  return {log.text, '0', '0', '0'}
end
tidy(s, tonumber(ARGV[6]), 0, ARGV[8])
local first = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)[1]
local bytes = first and s.total - tonumber(first[2][4]) or 0
return {log.text, digits(bytes), digits(redis.call('XLEN', KEYS[3])), first and first[2][2] or '0'}
