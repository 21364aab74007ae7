#!lua flags=allow-oom
-- cycle: a worker's whole conversation: report what ended, take what is next, in one round trip.
--
-- KEYS    see entries.lua
-- ARGV    see entries.lua; then 3 consumer   4 how many to take
--         5 number of notes   6 number of finished attempts   7 number of arrivals; then for each
--         note      lane, entry, job, tag, body
--         finished  outcome, lane, entry, attempt, job, delay in ms, body; the outcome is the tag of
--                   its event: completed, failed, attempt_failed, or released (no event if its
--                   body is empty); the delay says when the last two are due again
--         arrival   lane, entry, job: came by the worker's blocking read; `job` is empty if it waits
--                   for this answer, else the worker had all it needs and has begun it
-- Answer  1 if the consumer is alive, 0 if its lease ran out (then nothing is taken and arrivals
--         are parked); how many finished attempts came too late; 0, or 1 if the queue is paused or
--         has limits, or 2 if for these it gives nothing now; then for each job taken: lane, entry,
--         attempt, job, body of its `submitted` event
-- Promise XACK opens once, so of all who complete a job one appends the terminal event. An attempt
--         that ended otherwise changes something only if this consumer still owns the entry in that
--         very attempt. All checks are per entry, so one stale item never spoils the batch; and
--         finished attempts reported again after a lost answer append nothing twice.

local ME, want = ARGV[3], tonumber(ARGV[4])
local answer = { call('ZSCORE', WORKERS, ME) and 1 or 0, 0, 0 }
local alive = answer[1] == 1
if alive then call('ZADD', WORKERS, NOW, ME) end

local at = 8
local acknowledged = {}

local function owned(number, entry)
  local row = pending(number, entry)
  return row and row[2] == ME and row
end

local function acknowledge(number, entry)
  if call('XACK', lane_of(number), WORKERS_GROUP, entry) == 0 then return false end
  local list = acknowledged[number]
  if list then list[#list + 1] = entry else acknowledged[number] = { entry } end
  if any_due or any_crash or any_group or any_unique then forget(number, entry) end
  return true
end

local function parts(id)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  return tonumber(ms), tonumber(seq)
end

-- Take acknowledged entries out of their lane. Whatever lies before the oldest pending entry was
-- delivered and acknowledged, so one XTRIM takes all of it; only what was overtaken needs an XDEL
-- of its own, which must search a node of a hundred entries.
local function sweep(number, entries)
  local lane = lane_of(number)
  local oldest = call('XPENDING', lane, WORKERS_GROUP)[2]
  local old_ms, old_seq = math.huge, 0
  if oldest then old_ms, old_seq = parts(oldest) end
  local new_ms, new_seq = 0, 0
  for _, entry in ipairs(entries) do
    local ms, seq = parts(entry)
    if ms > old_ms or (ms == old_ms and seq > old_seq) then
      call('XDEL', lane, entry)
    elseif ms > new_ms or (ms == new_ms and seq > new_seq) then
      new_ms, new_seq = ms, seq
    end
  end
  if new_ms > 0 then
    call('XTRIM', lane, 'MINID', '=', oldest or string.format('%d-%d', new_ms, new_seq + 1))
  end
end

local begun = ',"worker":"' .. ME .. '"}'

-- What was begun comes first: in the log an attempt starts before it says anything or ends.
local waiting = {}
local arrival = #ARGV - 3 * tonumber(ARGV[7]) + 1
for i = arrival, #ARGV, 3 do
  local number, entry, job = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2]
  if owned(number, entry) then
    if job ~= '' then append('started', job, '{"attempt":1' .. begun) else waiting[#waiting + 1] = { number, entry } end
  end
end

for _ = 1, tonumber(ARGV[5]) do
  if owned(tonumber(ARGV[at]), ARGV[at + 1]) then append(ARGV[at + 3], ARGV[at + 2], ARGV[at + 4]) end
  at = at + 5
end

for _ = 1, tonumber(ARGV[6]) do
  local outcome, number, entry = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2]
  local job, body = ARGV[at + 4], ARGV[at + 6]
  if outcome == 'completed' then
    if acknowledge(number, entry) then append(outcome, job, body) else answer[2] = answer[2] + 1 end
  else
    local row = owned(number, entry)
    if not row or row[4] ~= tonumber(ARGV[at + 3]) then
      answer[2] = answer[2] + 1
    elseif outcome == 'failed' then
      acknowledge(number, entry)
      append(outcome, job, body)
    else
      local spent = outcome == 'attempt_failed' and row[4] or row[4] - 1
      leave_group(number .. ':' .. entry)
      park(number, entry, NOW + tonumber(ARGV[at + 5]), spent)
      if body ~= '' then append(outcome, job, body) end
    end
  end
  at = at + 7
end

for number, entries in pairs(acknowledged) do sweep(number, entries) end

-- Limits: how many of those wanted the queue lets go now.

local control = call('HMGET', CONTROL, 'paused', 'concurrency', 'rate', 'burst', 'tokens', 'at', 'per_group')
local per_group = tonumber(control[7] or 0)
local tokens
local asked = want

if control[1] then want = 0 end
if control[2] and want > 0 then
  local running = -call('ZCARD', DUE) - call('ZCARD', HELD)
  for number = 1, LATER do running = running + call('XPENDING', lane_of(number), WORKERS_GROUP)[1] end
  want = math.max(0, math.min(want, control[2] - running + #waiting))
end
if control[3] and want > 0 then
  -- A token bucket, filled by the server's clock: rate in jobs per second, at most burst at once.
  local burst = tonumber(control[4])
  tokens = math.min(burst, tonumber(control[5] or burst) + (NOW - (control[6] or NOW)) * control[3] / 1000)
  want = math.min(want, math.floor(tokens))
end
if control[1] or control[2] or control[3] or control[7] then answer[3] = want == 0 and asked > 0 and 2 or 1 end

-- Taking.

local taken = 0

-- Whether the entry's group has room; if not it is held until it has.
local function admitted(number, entry, deliveries, name)
  local member = number .. ':' .. entry
  if tonumber(call('HGET', GROUPS, name) or 0) < per_group then
    call('HINCRBY', GROUPS, name, 1)
    call('HSET', GROUP_OF, member, name)
    any_group = true
    return true
  end
  call('XCLAIM', lane_of(number), WORKERS_GROUP, PARKED, 0, entry, 'RETRYCOUNT', deliveries - 1, 'JUSTID')
  call('ZADD', HELD, 0, name .. '\31' .. member)
  call('HSET', GROUP_OF, member, name)
  call('ZADD', TURNS, 'NX', call('HINCRBY', CONTROL, 'turn', 1), name)
  any_group = true
  return false
end

local function lose(number, entry, job, body)
  acknowledge(number, entry)
  call('XDEL', lane_of(number), entry)
  append('failed', job, body)
end

-- Start an entry that this consumer owns; `fields` as in the lane.
local function start(number, entry, attempt, fields)
  local job = fields[2] ~= '' and fields[2] or entry
  if #fields > 4 then
    local extra = {}
    for i = 5, #fields, 2 do extra[fields[i]] = fields[i + 1] end
    if extra['until'] and attempt == 1 and tonumber(extra['until']) < NOW then
      return lose(number, entry, job, '{"reason":"expired","error":"Expired","message":"not started within its ttl"}')
    end
    if extra.group and per_group > 0 and not admitted(number, entry, attempt, extra.group) then return end
  end
  local spec = fields[4] ~= '' and fields[4] or entry
  local found = call('XRANGE', LOG, spec, spec)[1]
  if not found then
    -- Only a hand that trims the log can do this; the job cannot run, and says so.
    return lose(number, entry, job, '{"reason":"lost","error":"LogTrimmed","message":"its submitted event is no longer in the log"}')
  end
  append('started', job, '{"attempt":' .. attempt .. begun)
  local n = #answer
  answer[n + 1], answer[n + 2], answer[n + 3], answer[n + 4], answer[n + 5] = number, entry, attempt, job, found[2][6]
  want, taken = want - 1, taken + 1
end

-- Claim a parked entry and start it; one that ended meanwhile is only forgotten.
local function claim(number, entry)
  local claimed = call('XCLAIM', lane_of(number), WORKERS_GROUP, ME, 0, entry)[1]
  if claimed then start(number, entry, pending(number, entry)[4], claimed[2]) end
end

for _, it in ipairs(waiting) do
  if alive and want > 0 then
    start(it[1], it[2], 1, call('XRANGE', lane_of(it[1]), it[2], it[2])[1][2])
  else
    park(it[1], it[2], NOW, 0)
  end
end

if not alive then return answer end

-- Held entries: one of each group that has room, the group served longest ago first, and again.
local function take_turns()
  local progress = true
  while want > 0 and progress do
    progress = false
    for _, name in ipairs(call('ZRANGE', TURNS, 0, 63)) do
      if want <= 0 then break end
      if per_group == 0 or tonumber(call('HGET', GROUPS, name) or 0) < per_group then
        local member = call('ZRANGEBYLEX', HELD, '[' .. name .. '\31', '(' .. name .. '\32', 'LIMIT', 0, 1)[1]
        if member then
          call('ZREM', HELD, member)
          member = string.sub(member, #name + 2)
          call('HDEL', GROUP_OF, member)
          call('ZADD', TURNS, call('HINCRBY', CONTROL, 'turn', 1), name)
          claim(tonumber(string.sub(member, 1, 1)), string.sub(member, 3))
          progress = true
        else
          call('ZREM', TURNS, name)
        end
      end
    end
  end
end

local function take_fresh()
  for number = 1, 3 do
    -- Entries of a full group are held, not taken: read on, but leave the server to others in time.
    for _ = 1, 8 do
      if want <= 0 then return end
      local read = call('XREADGROUP', 'GROUP', WORKERS_GROUP, ME, 'COUNT', want, 'STREAMS', lane_of(number), '>')
      if not read then break end
      local entries, before = read[1][2], want
      for _, entry in ipairs(entries) do start(number, entry[1], 1, entry[2]) end
      if #entries < before then break end
    end
  end
end

if want > 0 and any_due then
  for _, member in ipairs(call('ZRANGEBYSCORE', DUE, '-inf', NOW, 'LIMIT', 0, want)) do
    call('ZREM', DUE, member)
    claim(tonumber(string.sub(member, 1, 1)), string.sub(member, 3))
  end
end

if want > 0 then
  if call('EXISTS', TURNS) == 0 then
    take_fresh()
  elseif call('HINCRBY', CONTROL, 'flip', 1) % 2 == 0 then
    -- In turn, so that neither the groups that wait nor what is new is starved by the other.
    take_turns()
    take_fresh()
  else
    take_fresh()
    take_turns()
  end
end

if tokens then call('HSET', CONTROL, 'tokens', tostring(tokens - taken), 'at', NOW) end
return answer
