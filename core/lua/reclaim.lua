#!lua flags=allow-oom
-- reclaim: take the entries of a consumer that fell silent, a page at a time.
--
-- KEYS    1 epoch   2 log   3..6 lanes high, normal, low, later   7 due   8 workers   9 crashes
-- ARGV    1 group   2 parked   3 silent consumer   4 lease in ms   5 page size   6 crash limit
-- Answer  entries parked; entries dead-lettered; 1 if there is more, else 0
-- Promise nothing happens to a consumer that gave a sign of life in time. Every entry is parked
--         as due now, its attempt not spent, or dead-lettered when its workers died too often,
--         before the consumer is dropped: XGROUP DELCONSUMER forgets what it still holds.

if redis.call('EXISTS', KEYS[1]) == 0 then return redis.error_reply('NOTOPEN partition') end

local group, parked, silent = ARGV[1], ARGV[2], ARGV[3]
local page, limit = tonumber(ARGV[5]), tonumber(ARGV[6])
local log, due, workers, crashes = KEYS[2], KEYS[7], KEYS[8], KEYS[9]

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local seen = redis.call('ZSCORE', workers, silent)
if seen and now - tonumber(seen) < tonumber(ARGV[4]) then return { 0, 0, 0 } end

local again, dead, looked = 0, 0, 0
for number = 1, 4 do
  local lane = KEYS[2 + number]
  for _, row in ipairs(redis.call('XPENDING', lane, group, '-', '+', page, silent)) do
    looked = looked + 1
    local entry, member = row[1], number .. ':' .. row[1]
    local found = redis.call('XRANGE', lane, entry, entry)[1]
    local job = found and found[2][2] ~= '' and found[2][2] or entry
    local count = redis.call('HINCRBY', crashes, member, 1)
    if not found then
      redis.call('XACK', lane, group, entry)
      redis.call('HDEL', crashes, member)
    elseif count >= limit then
      redis.call('XACK', lane, group, entry)
      redis.call('XDEL', lane, entry)
      redis.call('HDEL', crashes, member)
      redis.call('XADD', log, '*', 'event', 'failed', 'job', job, 'body', string.format(
        '{"reason":"crashed","error":"WorkerLost","message":"its worker fell silent %d times while it ran, last %s","attempt":%d}',
        count, silent, row[4]))
      dead = dead + 1
    else
      redis.call('XCLAIM', lane, group, parked, 0, entry, 'RETRYCOUNT', row[4] - 1, 'JUSTID')
      redis.call('ZADD', due, now, member)
      redis.call('XADD', log, '*', 'event', 'lease_expired', 'job', job, 'body',
        string.format('{"worker":"%s","crashes":%d}', silent, count))
      again = again + 1
    end
  end
  if looked >= page then return { again, dead, 1 } end
end

for number = 1, 4 do redis.call('XGROUP', 'DELCONSUMER', KEYS[2 + number], group, silent) end
redis.call('ZREM', workers, silent)
return { again, dead, 0 }
