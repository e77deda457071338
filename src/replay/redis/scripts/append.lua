local function tidy_up(s)
  save(s)
  tidy(stand(), tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9])
end

if is_done then
  tidy_up(stand())
  return 1
end

local log = open_log()
local s = stand()
local must_tidy = ARGV[10] == '1' or not s or s.is_gone
s = s or new_stream(log)
local round = round_of(s.head)
local ttl = tonumber(ARGV[6])
local answers = {log.text}
local at, keys = 14, 3
while at <= #ARGV do
  local count, size, fingerprint, message = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3]
  local key = nil
  if fingerprint ~= '' then
    keys = keys + 1
    key = KEYS[keys]
  end
  local seen = key and published(key, fingerprint)
  if seen then
    answers[#answers + 1] = seen
  else
    if ttl > 0 and now - s.time > ttl and s.floor <= s.head then
      -- What nobody could have any more does not come back with the next message.
      s.floor, must_tidy = s.head + 1, true
    end
    if enter_generation(s, log) then must_tidy = true end
    local last = s.generations[#s.generations]
    local before = digits(s.total)
    s.head, s.time, s.total, s.generation = s.head + 1, math.max(s.time, now), s.total + size, log.generation
    local id, time = digits(log.generation) .. '-' .. digits(s.head), digits(s.time)
    local part = string.sub(message, #ARGV[at + 8] + #ARGV[at + 10] + 4)
    ARGV[at + 8], ARGV[at + 10], ARGV[at + 12] = id, time, before
    redis.call('XADD', KEYS[3], unpack(ARGV, at + 5, at + 3 + count))
    publish(key, fingerprint, id, 'S' .. id .. ':' .. time .. ':' .. part)
    local begins = last[2] == s.head and '1' or '0'
    answers[#answers + 1] = id .. ' ' .. time .. ' ' .. before .. ' ' .. begins
  end
  at = at + 4 + count
end
if must_tidy or round_of(s.head) ~= round then tidy_up(s) end
answers[1] = log.text
return answers
