-- A partition's log: `<identity of the server> <generation> <nonce> <base>`. The generation is another one whenever the
-- server is, for its data may have gone back. `base` is the largest serial of streams that were forgotten.
local function words(text)
  local list = {}
  for word in string.gmatch(text, '%S+') do list[#list + 1] = word end
  return list
end

local function digits(number)
  return string.format('%.0f', number)
end

local function save_log(log)
  log.text = digits(log.generation) .. ' ' .. log.nonce .. ' ' .. digits(log.base)
  redis.call('SET', KEYS[1], log.identity .. ' ' .. log.text)
end

local function field_of_info(section, name)
  return string.match(redis.call('INFO', section), name .. ':(%x+)') or ''
end

local function open_log()
  local text = redis.call('GET', KEYS[1])
  local word = text and words(text)
  local log = word and
    {identity = word[1], generation = tonumber(word[2]), nonce = word[3], base = tonumber(word[4])}
  if log and log.identity == identity then
    log.text = word[2] .. ' ' .. word[3] .. ' ' .. word[4]
    return log
  end
  -- The link may be older than the server's present identity.
  local actual = field_of_info('server', 'run_id') .. '/' .. field_of_info('replication', 'master_replid')
  if not log then
    log = {identity = actual, generation = 1, nonce = ARGV[4], base = 0}
    save_log(log)
  elseif log.identity ~= actual then
    -- What was lost may have had later generations. The clock tells those apart that nobody remembers.
    local clock = math.floor(tonumber(ARGV[2]) / 1000) - 1767225600
    log.identity = actual
    log.generation = math.max(log.generation + 1, tonumber(ARGV[3]) + 1, clock)
    save_log(log)
  else
    log.text = word[2] .. ' ' .. word[3] .. ' ' .. word[4]
  end
  return log
end
