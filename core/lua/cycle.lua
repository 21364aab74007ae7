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
--         has limits, or if for these it gives nothing now for how many ms (2 or more; unless an
--         attempt ends or somebody changes them); then for each job taken: lane, entry, attempt, job,
--         body of its `submitted` event
-- Promise XACK opens once, so of all who complete a job one appends the terminal event. An attempt
--         that ended otherwise changes something only if this consumer still owns the entry in that
--         very attempt. All checks are per entry, so one stale item never spoils the batch; and
--         finished attempts reported again after a lost answer append nothing twice.

local ME, want = ARGV[3], tonumber(ARGV[4])
local answer = { call('ZSCORE', WORKERS, ME) and 1 or 0, 0, 0 }
local alive = answer[1] == 1
if alive then call('ZADD', WORKERS, NOW, ME) end

local at = 8
local acknowledged = {} -- by lane, the entries that are still to be taken out of it

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

-- All that completed is acknowledged at once, lane by lane. Where something was acknowledged before,
-- nothing tells what: then each entry's own deletion does, for an entry leaves its lane when its job ends.
local finished, completed = tonumber(ARGV[6]), {}
for i = at, at + 7 * (finished - 1), 7 do
  if ARGV[i] == 'completed' then
    local number = tonumber(ARGV[i + 1])
    local list = completed[number]
    if list then list[#list + 1] = ARGV[i + 2] else completed[number] = { ARGV[i + 2] } end
  end
end
local gate = {}
for number, entries in pairs(completed) do
  if call('XACK', lane_of(number), WORKERS_GROUP, unpack(entries)) == #entries then
    acknowledged[number] = entries
  else
    gate[number] = true
  end
end

for _ = 1, finished do
  local outcome, number, entry = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2]
  local job, body = ARGV[at + 4], ARGV[at + 6]
  if outcome == 'completed' then
    if gate[number] and call('XDEL', lane_of(number), entry) == 0 then
      answer[2] = answer[2] + 1
    else
      if any_due or any_crash or any_group or any_unique then forget(number, entry) end
      append(outcome, job, body)
    end
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
  local waited = math.max(0, NOW - (control[6] or NOW))
  tokens = math.min(burst, tonumber(control[5] or burst) + waited * control[3] / 1000)
  want = math.min(want, math.floor(tokens))
end
if control[1] or control[2] or control[3] or control[7] then answer[3] = want == 0 and asked > 0 and 1000 or 1 end

-- Taking. Where groups have a limit they take turns: all there is to take is first sorted into groups
-- (held), further than is wanted, so that the backlog of one does not hide the others; then each
-- group in turn gives one. Jobs without a group take turns as one group, which has no limit.

local in_turns = per_group > 0 or call('EXISTS', TURNS) == 1
local taken = 0

local function lose(number, entry, job, body)
  acknowledge(number, entry)
  call('XDEL', lane_of(number), entry)
  append('failed', job, body)
end

local function enter_group(number, entry, name)
  call('HINCRBY', GROUPS, name, 1)
  call('HSET', GROUP_OF, number .. ':' .. entry, name)
  any_group = true
end

-- What few entries have: see entries.lua.
local NOTHING = {}
local function extras(fields)
  if #fields == 4 then return NOTHING end
  local extra = {}
  for i = 5, #fields, 2 do extra[fields[i]] = fields[i + 1] end
  return extra
end

local function body_of(spec)
  local found = call('XRANGE', LOG, spec, spec)[1]
  return found and found[2][6]
end

-- Jobs submitted together stand one after the other in the log, and one question brings the bodies of
-- all: where entries are as many as there can be ids from the first to the last, nothing stands between.
local bodies = {}
local function read_bodies(entries, from, to)
  if to - from < 7 then return end
  local ms, first = parts(entries[from][1])
  local last_ms, last = parts(entries[to][1])
  if ms == last_ms and last - first == to - from then
    for _, found in ipairs(call('XRANGE', LOG, entries[from][1], entries[to][1])) do bodies[found[1]] = found[2][6] end
  else
    local middle = math.floor((from + to) / 2)
    read_bodies(entries, from, middle)
    read_bodies(entries, middle + 1, to)
  end
end

-- Start an entry that this consumer owns; `fields` as in the lane.
local function start(number, entry, attempt, fields)
  local job, extra = fields[2] ~= '' and fields[2] or entry, extras(fields)
  if extra['until'] and attempt == 1 and tonumber(extra['until']) < NOW then
    return lose(number, entry, job, '{"reason":"expired","error":"Expired","message":"not started within its ttl"}')
  end
  local spec = fields[4] ~= '' and fields[4] or entry
  local body = bodies[spec] or body_of(spec)
  if not body then
    -- Only a hand that trims the log can do this; the job cannot run, and says so.
    return lose(number, entry, job, '{"reason":"lost","error":"LogTrimmed","message":"its submitted event is no longer in the log"}')
  end
  if extra.group then enter_group(number, entry, extra.group) end
  append('started', job, '{"attempt":' .. attempt .. begun)
  local n = #answer
  answer[n + 1], answer[n + 2], answer[n + 3], answer[n + 4], answer[n + 5] = number, entry, attempt, job, body
  want, taken = want - 1, taken + 1
end

-- Whether an entry is to wait: it lost its worker twice and so may kill a third, and another such runs.
-- One at a time, it takes no others along until it is given up.
local function suspect_waits(number, entry)
  local member = number .. ':' .. entry
  if tonumber(call('HGET', CRASHES, member) or 0) < 2 then return false end
  local other = call('HGET', CONTROL, 'suspect')
  local row = other and other ~= member and pending(tonumber(string.sub(other, 1, 1)), string.sub(other, 3))
  if row and row[2] ~= PARKED then
    call('ZADD', DUE, NOW + 100, member)
    return true
  end
  call('HSET', CONTROL, 'suspect', member)
  return false
end

-- Claim a parked entry and start it; one that ended meanwhile is only forgotten.
local function claim(number, entry)
  if any_crash and suspect_waits(number, entry) then return end
  local claimed = call('XCLAIM', lane_of(number), WORKERS_GROUP, ME, 0, entry)[1]
  if claimed then start(number, entry, pending(number, entry)[4], claimed[2]) end
end

-- `member` of DUE or GROUP_OF as the lane's number and the entry.
local function apart(member)
  return tonumber(string.sub(member, 1, 1)), string.sub(member, 3)
end

local function hold(number, entry, deliveries, fields)
  local name, member = extras(fields).group or '', number .. ':' .. entry
  call('XCLAIM', lane_of(number), WORKERS_GROUP, PARKED, 0, entry, 'RETRYCOUNT', deliveries, 'JUSTID')
  call('ZADD', HELD, 0, held_as(name, member))
  call('HSET', GROUP_OF, member, name)
  call('ZADD', TURNS, 'NX', call('HINCRBY', CONTROL, 'turn', 1), name)
  any_group = true
end

for _, it in ipairs(waiting) do
  local number, entry = it[1], it[2]
  local fields = call('XRANGE', lane_of(number), entry, entry)[1][2]
  if not alive then
    park(number, entry, NOW, 0)
  elseif in_turns then
    hold(number, entry, 0, fields)
  elseif want > 0 then
    start(number, entry, 1, fields)
  else
    park(number, entry, NOW, 0)
  end
end

if not alive then return answer end

local function read_fresh(number, count)
  local read = call('XREADGROUP', 'GROUP', WORKERS_GROUP, ME, 'COUNT', count, 'STREAMS', lane_of(number), '>')
  return read and read[1][2] or {}
end

local function take()
  if any_due then
    for _, member in ipairs(call('ZRANGEBYSCORE', DUE, '-inf', NOW, 'LIMIT', 0, want)) do
      call('ZREM', DUE, member)
      claim(apart(member))
    end
  end
  for number = 1, 3 do
    if want <= 0 then return end
    local fresh = read_fresh(number, want)
    read_bodies(fresh, 1, #fresh)
    for _, entry in ipairs(fresh) do start(number, entry[1], 1, entry[2]) end
  end
end

local function sort(count)
  if any_due then
    for _, member in ipairs(call('ZRANGEBYSCORE', DUE, '-inf', NOW, 'LIMIT', 0, count)) do
      call('ZREM', DUE, member)
      local number, entry = apart(member)
      local row, found = pending(number, entry), call('XRANGE', lane_of(number), entry, entry)[1]
      if row and found then hold(number, entry, row[4], found[2]) end
      count = count - 1
    end
  end
  for number = 1, 3 do
    if count <= 0 then return end
    for _, entry in ipairs(read_fresh(number, count)) do
      hold(number, entry[1], 0, entry[2])
      count = count - 1
    end
  end
end

-- The group whose turn was longest ago gives its first entry, if it has room, and goes to the end.
local function take_turns(looks)
  local full = 0
  while want > 0 and looks > 0 and full < call('ZCARD', TURNS) do
    local name = call('ZRANGE', TURNS, 0, 0)[1]
    call('ZADD', TURNS, call('HINCRBY', CONTROL, 'turn', 1), name)
    if name == '' or per_group == 0 or tonumber(call('HGET', GROUPS, name) or 0) < per_group then
      local member = string.gsub(string.sub(first_held(name), #name + 2), ' +', '')
      unhold(name, member)
      call('HDEL', GROUP_OF, member)
      claim(apart(member))
      full = 0
    else
      full = full + 1
    end
    looks = looks - 1
  end
end

if in_turns and want > 0 then
  -- Four times the work for each job: fewer at a time, so that others need not wait for this script
  -- longer than usual; if there may be more, the consumer is to ask again at once.
  local most = 32
  want = math.min(want, most)
  sort(want + 64)
  take_turns(want + 512)
  if taken == most and asked > most then answer[3] = 2 end
elseif want > 0 then
  take()
end

if tokens then
  local left = tokens - taken
  call('HSET', CONTROL, 'tokens', tostring(left), 'at', NOW)
  if left < 1 then answer[3] = math.max(2, math.ceil((1 - left) * 1000 / control[3])) end
end
return answer
