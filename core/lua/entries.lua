-- entries: what all scripts share that move jobs. It stands in front of each of them.
--
-- A lane entry says `job` (position of the job's first event, empty if that is the entry's own id)
-- and `spec` (position of the event whose body says what to do, empty if that is the entry's own
-- id), and only where they are wanted `group` (concurrency key), `ttl` and `until` (ms and Unix ms:
-- expires unless started) and `body` (what to do, so that an idle worker can begin with no further
-- question).
-- It is somewhere in this life:
--
--     fresh      in its lane, delivered to nobody
--     running    pending, owned by a consumer
--     parked     pending, owned by the pseudo-consumer, with a time in `due`
--     held       parked without a time: it waits for the turn of its group
--     ended      acknowledged and deleted
--
-- KEYS    1 epoch   2 log   3..6 lanes high, normal, low, later   7 due   8 workers   9 crashes
--         10 control   11 group_of   12 groups   13 held   14 turns   15 unique   16 unique_of
--         17 told
-- ARGV    1 consumer group   2 name of the pseudo-consumer

if redis.call('EXISTS', KEYS[1]) == 0 then return redis.error_reply('NOTOPEN partition') end

local call = redis.call
local WORKERS_GROUP, PARKED = ARGV[1], ARGV[2]
local LOG, DUE, WORKERS, CRASHES, CONTROL = KEYS[2], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local GROUP_OF, GROUPS, HELD, TURNS = KEYS[11], KEYS[12], KEYS[13], KEYS[14]
local UNIQUE, UNIQUE_OF, TOLD = KEYS[15], KEYS[16], KEYS[17]
local LATER = 4

local time = call('TIME')
local NOW = time[1] * 1000 + math.floor(time[2] / 1000)

-- Most partitions use none of these: one look at all, then nothing more is asked of them.
local any_due, any_crash, any_group, any_unique = false, false, false, false
if call('EXISTS', DUE, CRASHES, GROUP_OF, UNIQUE_OF) > 0 then
  any_due, any_crash = call('EXISTS', DUE) == 1, call('EXISTS', CRASHES) == 1
  any_group, any_unique = call('EXISTS', GROUP_OF) == 1, call('EXISTS', UNIQUE_OF) == 1
end

local function lane_of(number)
  return KEYS[2 + number]
end

local function append(tag, job, body)
  return call('XADD', LOG, '*', 'event', tag, 'job', job, 'body', body)
end

-- The entry's row in the pending list (id, owner, idle, deliveries), or nil.
local function pending(number, entry)
  return call('XPENDING', lane_of(number), WORKERS_GROUP, entry, entry, 1)[1]
end

-- A lane entry's fields as a table, or nil if it is not there.
local function read(number, entry)
  local found = call('XRANGE', lane_of(number), entry, entry)[1]
  if not found then return nil end
  local fields = {}
  for at = 1, #found[2], 2 do fields[found[2][at]] = found[2][at + 1] end
  return fields
end

local function park(number, entry, when, deliveries)
  call('XCLAIM', lane_of(number), WORKERS_GROUP, PARKED, 0, entry, 'RETRYCOUNT', deliveries, 'JUSTID')
  call('ZADD', DUE, when, number .. ':' .. entry)
  any_due = true
end

-- How a held entry stands in HELD: by group, then lane, then position; padded, so that the order of the
-- text is that of the log.
local function held_as(name, member)
  return name .. '\31' .. string.gsub(member, '%d+$', function(seq) return string.format('%20s', seq) end)
end

-- The group's first held entry as HELD has it, or nil.
local function first_held(name)
  return call('ZRANGEBYLEX', HELD, '[' .. name .. '\31', '(' .. name .. '\32', 'LIMIT', 0, 1)[1]
end

-- The entry waits for its group's turn no more; 0 if it did not.
local function unhold(name, member)
  local removed = call('ZREM', HELD, held_as(name, member))
  if removed == 1 and not first_held(name) then call('ZREM', TURNS, name) end
  return removed
end

-- The entry runs no more (or waits for its group no more): its group has room for another.
local function leave_group(member)
  local name = any_group and call('HGET', GROUP_OF, member)
  if not name then return end
  call('HDEL', GROUP_OF, member)
  if unhold(name, member) == 0 and call('HINCRBY', GROUPS, name, -1) <= 0 then
    call('HDEL', GROUPS, name)
  end
end

-- The job of this entry has ended: nothing may remember the entry.
local function forget(number, entry)
  local member = number .. ':' .. entry
  if any_due then call('ZREM', DUE, member) end
  if any_crash then call('HDEL', CRASHES, member) end
  leave_group(member)
  local key = any_unique and call('HGET', UNIQUE_OF, member)
  if key then
    call('HDEL', UNIQUE_OF, member)
    local holder = call('HGET', UNIQUE, key)
    if holder and string.find(holder, member .. ' ', 1, true) == 1 then call('HDEL', UNIQUE, key) end
  end
end

-- '' for at once, '+ms' from now, or Unix ms; as Unix ms.
local function due_at(when)
  return when == '' and NOW or string.sub(when, 1, 1) == '+' and NOW + tonumber(when) or tonumber(when)
end

-- Put a job into a lane, or park it until `when` (see `due_at`).
-- `job`, `spec` and `body` (or nil) as in the entry; `extra` has group, ttl and until (by default ttl
-- after its time), or is nil.
local function place(number, id, job, spec, when, extra, body)
  if when == '' and not extra and not body then
    call('XADD', lane_of(number), id, 'job', job, 'spec', spec)
    return number
  end
  local at = due_at(when)
  local fields = { 'job', job, 'spec', spec }
  if extra and extra.group then fields[5], fields[6] = 'group', extra.group end
  if extra and extra.ttl then
    local n = #fields
    fields[n + 1], fields[n + 2] = 'ttl', extra.ttl
    fields[n + 3], fields[n + 4] = 'until', extra['until'] or string.format('%d', at + extra.ttl)
  end
  if when == '' then
    if body and #fields == 4 then fields[5], fields[6] = 'body', body end
    call('XADD', lane_of(number), id, unpack(fields))
    return number
  end
  -- A delayed job is a parked pending entry: taken at once by nobody, claimed when due.
  call('XADD', KEYS[6], id, unpack(fields))
  call('XREADGROUP', 'GROUP', WORKERS_GROUP, PARKED, 'COUNT', 1, 'STREAMS', KEYS[6], '>')
  park(LATER, id, at, 0)
  return LATER
end

-- Where an entry is: its lane's number, its fields and its row in the pending list (nil if fresh).
local function find(entry)
  for number = 1, LATER do
    local fields = read(number, entry)
    if fields then return number, fields, pending(number, entry) end
  end
end

-- End an entry before its time, wherever it is. Who runs it is told at its next sign of life.
local function withdraw(number, entry, row)
  if row then
    call('XACK', lane_of(number), WORKERS_GROUP, entry)
    if row[2] ~= PARKED then call('HSET', TOLD, number .. ':' .. entry, row[2]) end
  end
  call('XDEL', lane_of(number), entry)
  forget(number, entry)
end

-- A consumer is gone: what it was to be told is told to nobody.
local function untell(consumer)
  local told = call('HGETALL', TOLD)
  for at = 1, #told, 2 do
    if told[at + 1] == consumer then call('HDEL', TOLD, told[at]) end
  end
end
