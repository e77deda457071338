-- Forgets the messages before a serial. Serials and generation go on.
--
-- KEYS: log, streams, stream
-- ARGV: 1 to 5 as for appending, 6 serial
-- Returns the log.
local log = open_log()
local s = stand()
if not s or s.is_gone then return {log.text} end
local floor = math.min(tonumber(ARGV[6]), s.head + 1)
if floor > s.floor then
  s.floor = floor
  save(s)
  if floor > s.head then
    redis.call('XTRIM', KEYS[3], 'MAXLEN', '=', 0)
  elseif floor > s.first then
    redis.call('XTRIM', KEYS[3], 'MINID', '=', id_of(s, floor))
  end
end
return {log.text}
