#!lua flags=no-writes
-- runs: who works on a partition, and on what, at one moment.
--
-- KEYS    1 epoch   2 log   3..6 lanes high, normal, low, later   7 workers   8 facts
-- ARGV    1 group   2 how many entries to tell of each consumer and lane, at most
-- Answer  the time in ms; then for each consumer a list: its name, its last sign of life in ms, its
--         facts (or ''), how many entries it runs, and of these as many as may be told: job, type,
--         attempt, how long it has run in ms
-- Promise reads only, and no more of a job than its type: payloads stay where they are.

local call = redis.call
local time = call('TIME')
local answer = { time[1] * 1000 + math.floor(time[2] / 1000) }
if call('EXISTS', KEYS[1]) == 0 then return answer end

-- A job's type, which stands first in the body that says what to do; '' if that was trimmed by hand.
local function type_of(spec)
  local found = call('XRANGE', KEYS[2], spec, spec)[1]
  return found and string.match(string.sub(found[2][6], 1, 300), '^{"type":"([^"\\]*)"') or ''
end

local function tell(consumer, lane)
  for _, row in ipairs(call('XPENDING', lane, ARGV[1], '-', '+', ARGV[2], consumer[1])) do
    local entry = call('XRANGE', lane, row[1], row[1])[1]
    if entry then
      local job, spec = entry[2][2], entry[2][4]
      local n = #consumer
      consumer[n + 1] = job ~= '' and job or row[1]
      consumer[n + 2] = type_of(spec ~= '' and spec or row[1])
      consumer[n + 3], consumer[n + 4] = row[4], row[3]
    end
  end
end

local known, workers = {}, call('ZRANGE', KEYS[7], 0, -1, 'WITHSCORES')
for at = 1, #workers, 2 do
  local consumer = { workers[at], tonumber(workers[at + 1]), call('HGET', KEYS[8], workers[at]) or '', 0 }
  known[workers[at]] = consumer
  answer[#answer + 1] = consumer
end
if #workers == 0 then return answer end

for lane = 3, 6 do
  for _, row in ipairs(call('XPENDING', KEYS[lane], ARGV[1])[4] or {}) do
    local consumer = known[row[1]]
    if consumer then
      consumer[4] = consumer[4] + tonumber(row[2])
      tell(consumer, KEYS[lane])
    end
  end
end
return answer
