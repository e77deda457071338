-- Leaves a serial without a message and ends the generation, so that whoever was at the head has missed something.
--
-- KEYS: log, streams, stream
-- ARGV: 1 to 5 as for appending, 6 ms until the stream expires
-- Returns the log, head, time and bytes.
local log = open_log()
local s = stand() or new_stream(log)
local last = s.generations[#s.generations]
if last and last[1] >= log.generation and last[2] <= s.head then
  log.generation = log.generation + 1
  save_log(log)
end
-- One that has no message yet begins after this serial, too.
if last and last[2] > s.head then last[2] = last[2] + 1 end
s.head = s.head + 1
enter_generation(s, log)
s.floor = s.head + 1
redis.call('XADD', KEYS[3], digits(log.generation) .. '-' .. digits(s.head), 't', 0, 'b', 0)
redis.call('XTRIM', KEYS[3], 'MAXLEN', '=', 0)
redis.call('PEXPIRE', KEYS[3], ARGV[6])
save(s)
return {log.text, digits(s.head), digits(s.time), digits(s.total)}
