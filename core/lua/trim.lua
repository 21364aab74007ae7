#!lua flags=allow-oom
-- trim: take events out of the log that nobody needs any more, and count them in the base.
--
-- KEYS    1 checkpoint   2 log   3 base   4 readers   5..8 lanes high, normal, low, later; then 9..
--         for each end of each job the marker that whoever takes it up leaves (requeue.lua)
-- ARGV    1 the newest `trimmed` event that the caller knows ('' for none)   2 position of the last
--         event that goes   3 the base's stats   4 number of minutes   5 number of minutes to forget
--         6 number of jobs   7 body of the `trimmed` event; then
--         minute            minute, value
--         forgotten minute
--         job               number of its events that may stand in a lane, these; number of its ends,
--                           and for each the position of the event that took it up ('' for none)
--         then the positions of the events that go
-- Answer  position of the `trimmed` event; or, and then nothing was written, 0 where another has
--         trimmed meanwhile, or the views or a reader of the log have not seen all that goes, or n
--         where the n-th job is not over
-- Promise events go and are counted in the base in one step, and no view is written: the fold lets
--         the jobs go when it comes to the `trimmed` event, so views and log agree whoever folds.
--         Whatever the views say, nothing goes that a lane names or that an event after the
--         checkpoint took up again: no other event follows the end of a job.

local call = redis.call

local function parts(position)
  local ms, seq = string.match(position, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local last_ms, last_seq = parts(ARGV[2])

local function has_seen(position)
  local ms, seq = parts(position)
  return ms > last_ms or (ms == last_ms and seq >= last_seq)
end

local checkpoint = call('GET', KEYS[1])
if (call('HGET', KEYS[3], 'trimmed') or '') ~= ARGV[1] then return 0 end
if not checkpoint or not has_seen(checkpoint) then return 0 end
for _, position in ipairs(call('HVALS', KEYS[4])) do
  if not has_seen(position) then return 0 end
end

local lanes = {}
for lane = 5, 8 do
  if call('XLEN', KEYS[lane]) > 0 then lanes[#lanes + 1] = KEYS[lane] end
end

local function stands_in_a_lane(entry)
  for _, lane in ipairs(lanes) do
    if #call('XRANGE', lane, entry, entry) > 0 then return true end
  end
  return false
end

local minutes = 8
local old = minutes + 2 * tonumber(ARGV[4])
local at = old + tonumber(ARGV[5])
local marker = 8
local taken_up = {}
for job = 1, tonumber(ARGV[6]) do
  local entries = tonumber(ARGV[at])
  for i = at + 1, at + entries do
    if stands_in_a_lane(ARGV[i]) then return job end
  end
  at = at + entries + 1
  local ends = tonumber(ARGV[at])
  for i = at + 1, at + ends do
    marker = marker + 1
    local taker = call('GET', KEYS[marker])
    if taker then
      if taker ~= ARGV[i] then return job end
      taken_up[#taken_up + 1] = KEYS[marker]
    end
  end
  at = at + ends + 1
end

for i = at, #ARGV, 1000 do call('XDEL', KEYS[2], unpack(ARGV, i, math.min(i + 999, #ARGV))) end
for _, key in ipairs(taken_up) do call('DEL', key) end
for i = minutes, old - 1, 2 do call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end
for i = old, old + ARGV[5] - 1 do call('HDEL', KEYS[3], ARGV[i]) end
local id = call('XADD', KEYS[2], '*', 'event', 'trimmed', 'job', '', 'body', ARGV[7])
call('HSET', KEYS[3], 'stats', ARGV[3], 'trimmed', id)
return id
