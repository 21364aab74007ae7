#!lua flags=allow-oom
-- reclaim: take the entries of a consumer that fell silent, a page at a time.
--
-- KEYS    see entries.lua; then 18 facts
-- ARGV    see entries.lua; then 3 silent consumer   4 lease in ms   5 page size   6 crash limit
-- Answer  entries parked; entries dead-lettered; 1 if there is more, else 0
-- Promise nothing happens to a consumer that gave a sign of life in time. Every entry is parked
--         as due now, its attempt not spent, or dead-lettered when its workers died too often,
--         before the consumer is dropped: XGROUP DELCONSUMER forgets what it still holds.

local silent, page, limit = ARGV[3], tonumber(ARGV[5]), tonumber(ARGV[6])
local seen = call('ZSCORE', WORKERS, silent)
if seen and NOW - tonumber(seen) < tonumber(ARGV[4]) then return { 0, 0, 0 } end

local again, dead, looked = 0, 0, 0

local function take(number, entry, deliveries)
  local member = number .. ':' .. entry
  local fields = read(number, entry)
  if not fields then
    call('XACK', lane_of(number), WORKERS_GROUP, entry)
    return forget(number, entry)
  end
  local job = fields.job ~= '' and fields.job or entry
  local count = call('HINCRBY', CRASHES, member, 1)
  any_crash = true
  if count < limit then
    leave_group(member)
    park(number, entry, NOW, deliveries - 1)
    append('lease_expired', job, string.format('{"worker":"%s","crashes":%d}', silent, count))
    again = again + 1
  else
    withdraw(number, entry, { entry, PARKED })
    append('failed', job, string.format(
      '{"reason":"crashed","error":"WorkerLost","message":"its worker fell silent %d times while it ran, last %s","attempt":%d}',
      count, silent, deliveries))
    dead = dead + 1
  end
end

for number = 1, LATER do
  for _, row in ipairs(call('XPENDING', lane_of(number), WORKERS_GROUP, '-', '+', page, silent)) do
    looked = looked + 1
    take(number, row[1], row[4])
  end
  if looked >= page then return { again, dead, 1 } end
end

for number = 1, LATER do call('XGROUP', 'DELCONSUMER', lane_of(number), WORKERS_GROUP, silent) end
call('ZREM', WORKERS, silent)
call('HDEL', KEYS[18], silent)
untell(silent)
return { again, dead, 0 }
