#!lua
-- submit: accept a batch of jobs, all or nothing, once.
--
-- KEYS    see entries.lua; then 18 sender, and 19.. idempotency keys, in the order in which the
--         jobs name them
-- ARGV    see entries.lua; then 3 batch number   4 life of a sender's memory, ms
--         5 life of an idempotency key, ms; then 5 for each job: lane (1..3), when ('' now,
--         '+ms' after now, 'ms' Unix time), 1 if it has an idempotency key else 0, extra ('' or
--         JSON: group; ttl in ms; unique, life in ms (none is 0), replace), body of its `submitted` event
-- Answer  for each job its position, with a space between; with '=' in front where an idempotency key or a unique key
--         was known and the position is the first job's
-- Promise event and lane entry have one id and are written together. The batch number makes the
--         call idempotent: a producer that lost the answer sends the same batch again and gets
--         the same answer, and nothing is written twice. Batch numbers rise: a copy of an older
--         batch, late from a connection that broke, is refused. Over the backlog bound the whole batch
--         is refused (FULL).

local batch, sender = ARGV[3], KEYS[18]

local said = call('GET', sender)
if said then
  local last = string.match(said, '^%d+')
  if last == batch then
    call('PEXPIRE', sender, ARGV[4])
    return string.sub(said, #last + 2)
  end
  if tonumber(last) > tonumber(batch) then return redis.error_reply('OLDBATCH answered long ago') end
end

local control = call('HMGET', CONTROL, 'backlog', 'paused', 'rate', 'concurrency')
local bound = tonumber(control[1] or 0)
local held_back = control[2] or control[3] or control[4]
if bound > 0 then
  local backlog = call('XLEN', KEYS[3]) + call('XLEN', KEYS[4]) + call('XLEN', KEYS[5]) + call('XLEN', KEYS[6])
  if backlog + (#ARGV - 5) / 5 > bound then
    return redis.error_reply('FULL ' .. backlog .. ' jobs wait, and the bound is ' .. bound)
  end
end

-- Who holds a unique key, as a position; nil if it is free. A holder that is still delayed may
-- have to make way for the newer job (debounce).
local function holder(extra)
  local held = call('HGET', UNIQUE, extra.unique)
  if not held then return nil end
  local number, entry, job, expires = string.match(held, '^(%d):(%S+) (%S+) (%d+)$')
  if tonumber(expires) <= NOW then return nil end
  if not extra.replace then return job end
  number = tonumber(number)
  local row = pending(number, entry)
  if not (row and number == LATER and row[2] == PARKED and tonumber(row[4]) == 0) then return job end
  withdraw(number, entry, row)
  append('cancelled', job, '{"by":"debounce","reason":"replaced by a newer job with its unique key"}')
  return nil
end

local answer, once = {}, 19
for job = 6, #ARGV, 5 do
  local extra = ARGV[job + 3] ~= '' and cjson.decode(ARGV[job + 3]) or nil
  local key, first
  if ARGV[job + 2] == '1' then
    key, once = KEYS[once], once + 1
    first = call('GET', key)
  end
  if not first and extra and extra.unique then
    first = holder(extra)
    if first and key then call('SET', key, first, 'PX', ARGV[5]) end
  end
  if first then
    answer[#answer + 1] = '=' .. first
  else
    local id = append('submitted', '', ARGV[job + 4])
    local lane = tonumber(ARGV[job])
    -- A lone job for an empty lane brings its body along: an idle worker begins at once.
    local along = #ARGV == 10 and not held_back and call('XLEN', lane_of(lane)) == 0 and ARGV[job + 4] or nil
    local number = place(lane, id, '', '', ARGV[job + 1], extra, along)
    if key then call('SET', key, id, 'PX', ARGV[5]) end
    if extra and extra.unique then
      local member = number .. ':' .. id
      call('HSET', UNIQUE, extra.unique, string.format('%s %s %d', member, id, NOW + (extra.life or 0)))
      call('HSET', UNIQUE_OF, member, extra.unique)
      any_unique = true
    end
    answer[#answer + 1] = id
  end
end

answer = table.concat(answer, ' ')
call('SET', sender, batch .. ' ' .. answer, 'PX', ARGV[4])
return answer
