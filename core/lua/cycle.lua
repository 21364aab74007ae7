#!lua flags=allow-oom
-- cycle: a worker's whole conversation: report what ended, take what is next, in one round trip.
--
-- KEYS    1 epoch   2 log   3..6 lanes high, normal, low, later   7 due   8 workers   9 crashes
-- ARGV    1 group   2 parked   3 consumer   4 how many to take
--         5 number of notes   6 number of finished attempts   7 number of arrivals; then for each
--         note      lane, entry, job, tag, body
--         finished  outcome, lane, entry, attempt, job, delay in ms, body; the outcome is the tag of
--                   its event: completed, failed, attempt_failed, or released (no event if its
--                   body is empty); the delay says when the last two are due again
--         arrival   lane, entry: came by the worker's blocking read, not started yet
-- Answer  1 if the consumer is alive, 0 if its lease ran out (then nothing is taken and arrivals
--         are parked); how many finished attempts came too late; then for each job taken: lane,
--         entry, attempt, job, body of its `submitted` event
-- Promise XACK opens once, so of all who complete a job one appends the terminal event. An attempt
--         that ended otherwise changes something only if this consumer still owns the entry in that
--         very attempt. All checks are per entry, so one stale item never spoils the batch; and
--         finished attempts reported again after a lost answer append nothing twice.

if redis.call('EXISTS', KEYS[1]) == 0 then return redis.error_reply('NOTOPEN partition') end

local group, parked, me, want = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local log, due, workers, crashes = KEYS[2], KEYS[7], KEYS[8], KEYS[9]
local call = redis.call

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local alive = call('ZSCORE', workers, me) and 1 or 0
if alive == 1 then call('ZADD', workers, now, me) end

local anyone_parked = call('EXISTS', due) == 1
local anyone_crashed = call('EXISTS', crashes) == 1
local at = 8
local late = 0
local acknowledged = {}
local answer = { alive, 0 }

local function append(tag, job, body)
  call('XADD', log, '*', 'event', tag, 'job', job, 'body', body)
end

local function owned(lane, entry)
  local row = call('XPENDING', lane, group, entry, entry, 1)[1]
  return row and row[2] == me and row
end

local function acknowledge(number, entry)
  local lane = KEYS[2 + number]
  if call('XACK', lane, group, entry) == 0 then return false end
  local list = acknowledged[number]
  if list then list[#list + 1] = entry else acknowledged[number] = { entry } end
  if anyone_parked then call('ZREM', due, number .. ':' .. entry) end
  if anyone_crashed then call('HDEL', crashes, number .. ':' .. entry) end
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
  local lane = KEYS[2 + number]
  local oldest = call('XPENDING', lane, group)[2]
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

local function park(number, entry, when, attempts)
  call('XCLAIM', KEYS[2 + number], group, parked, 0, entry, 'RETRYCOUNT', attempts, 'JUSTID')
  call('ZADD', due, when, number .. ':' .. entry)
  anyone_parked = true
end

for _ = 1, tonumber(ARGV[5]) do
  if owned(KEYS[2 + tonumber(ARGV[at])], ARGV[at + 1]) then append(ARGV[at + 3], ARGV[at + 2], ARGV[at + 4]) end
  at = at + 5
end

for _ = 1, tonumber(ARGV[6]) do
  local outcome, number, entry = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2]
  local job, body = ARGV[at + 4], ARGV[at + 6]
  if outcome == 'completed' then
    if acknowledge(number, entry) then append(outcome, job, body) else late = late + 1 end
  else
    local row = owned(KEYS[2 + number], entry)
    if not row or row[4] ~= tonumber(ARGV[at + 3]) then
      late = late + 1
    elseif outcome == 'failed' then
      acknowledge(number, entry)
      append(outcome, job, body)
    elseif outcome == 'attempt_failed' then
      park(number, entry, now + tonumber(ARGV[at + 5]), row[4])
      append(outcome, job, body)
    else
      park(number, entry, now + tonumber(ARGV[at + 5]), row[4] - 1)
      if body ~= '' then append(outcome, job, body) end
    end
  end
  at = at + 7
end

for number, entries in pairs(acknowledged) do sweep(number, entries) end

local begun = ',"worker":"' .. me .. '"}'

local function start(number, entry, attempt, job)
  if job == '' then job = entry end
  local found = call('XRANGE', log, entry, entry)[1]
  if found then
    append('started', job, '{"attempt":' .. attempt .. begun)
    local n = #answer
    answer[n + 1], answer[n + 2], answer[n + 3], answer[n + 4], answer[n + 5] = number, entry, attempt, job, found[2][6]
  elseif acknowledge(number, entry) then
    call('XDEL', KEYS[2 + number], entry)
    -- Only a hand that trims the log can do this; the job cannot run, and says so.
    append('failed', job, '{"reason":"lost","error":"LogTrimmed","message":"its submitted event is no longer in the log"}')
  end
end

for _ = 1, tonumber(ARGV[7]) do
  local number, entry = tonumber(ARGV[at]), ARGV[at + 1]
  if owned(KEYS[2 + number], entry) then
    if alive == 1 then
      start(number, entry, 1, call('XRANGE', KEYS[2 + number], entry, entry)[1][2][2])
      want = want - 1
    else
      park(number, entry, now, 0)
    end
  end
  at = at + 2
end

answer[2] = late
if alive == 0 then return answer end

if want > 0 and anyone_parked then
  for _, member in ipairs(call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, want)) do
    local number, entry = tonumber(string.sub(member, 1, 1)), string.sub(member, 3)
    local claimed = call('XCLAIM', KEYS[2 + number], group, me, 0, entry)[1]
    call('ZREM', due, member)
    if claimed then
      start(number, entry, call('XPENDING', KEYS[2 + number], group, entry, entry, 1)[1][4], claimed[2][2])
      want = want - 1
    end
  end
end

for number = 1, 3 do
  if want <= 0 then break end
  local read = call('XREADGROUP', 'GROUP', group, me, 'COUNT', want, 'STREAMS', KEYS[2 + number], '>')
  if read then
    for _, entry in ipairs(read[1][2]) do
      start(number, entry[1], 1, entry[2][2])
      want = want - 1
    end
  end
end

return answer
