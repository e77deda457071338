-- Appends messages to a channel's stream and publishes each with its position.
--
-- KEYS: log, streams, stream, idempotency key of each message that has one
-- ARGV: 1 log as the caller knows it, 2 time in ms, 3 newest generation the caller knows, 4 nonce of a new log, 5 field of
--       the stream, 6 inactivity limit in ms, 7 window in ms, 8 most bytes, 9 ms until the stream expires, 10 `1` if it
--       is time to tidy up, 11 publish command, 12 topic, 13 `1` if the only message has the right position already;
--       14.. of each message: number of arguments of XADD, size, fingerprint, `S<id>:<time>:` and the publisher's part,
--       arguments of XADD (NOMKSTREAM MAXLEN ~ most id t time b bytes-before ..); id, time and bytes are empty if
--       the caller does not know them; at the end the server's identity as the link knows it
-- Returns 1 if all is as the caller said; `=<id>` if the only message was stored before; `!` if its key belongs to
-- another; otherwise the log, and of each message one of these or `<id> <time> <bytes before> <begins generation>`.
local identity = table.remove(ARGV)
local now = tonumber(ARGV[2])
local is_known = redis.call('GET', KEYS[1]) == identity .. ' ' .. ARGV[1]

local function published(key, fingerprint)
  local text = redis.call('GET', key)
  if not text then return nil end
  local id, print, time = string.match(text, '^(%S+) (%S+) (%S+)$')
  if not id or now - tonumber(time) >= 120000 then return nil end
  return print == fingerprint and '=' .. id or '!'
end

local function publish(key, fingerprint, id, message)
  if key then redis.call('SET', key, id .. ' ' .. fingerprint .. ' ' .. ARGV[2], 'PX', 120000) end
  redis.call(ARGV[11], ARGV[12], message)
end

local is_done = false
if is_known and ARGV[13] == '1' then
  local seen = KEYS[4] and published(KEYS[4], ARGV[16])
  if seen then return seen end
  -- Fails when the stream is gone, or has the position already.
  local id = redis.pcall('XADD', KEYS[3], unpack(ARGV, 18))
  if type(id) == 'string' then
    publish(KEYS[4], ARGV[16], id, ARGV[17])
    if ARGV[10] ~= '1' then return 1 end
    is_done = true
  end
end
