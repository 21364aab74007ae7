#!lua flags=allow-oom
-- release: give back what a living consumer holds but does not run.
--
-- KEYS    1 epoch   2 log   3..6 lanes high, normal, low, later   7 due   8 workers
-- ARGV    1 group   2 parked   3 consumer   4 page size   5 reason   6 '1' to drop the consumer at the end
--         7.. entries it does run, as lane:entry
-- Answer  entries given back; 1 if there is more, else 0
-- Promise an answer that was lost on the way (a broken connection, a blocking read cut short)
--         leaves entries pending that nobody runs. They are parked as due now, no attempt spent.

if redis.call('EXISTS', KEYS[1]) == 0 then return redis.error_reply('NOTOPEN partition') end

local group, parked, me, page = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local log, due, workers = KEYS[2], KEYS[7], KEYS[8]

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local runs = {}
for i = 7, #ARGV do runs[ARGV[i]] = true end

local given = 0
for number = 1, 4 do
  local lane, from = KEYS[2 + number], '-'
  repeat
    local rows = redis.call('XPENDING', lane, group, from, '+', page, me)
    for _, row in ipairs(rows) do
      local entry, member = row[1], number .. ':' .. row[1]
      from = '(' .. entry
      if not runs[member] then
        local found = redis.call('XRANGE', lane, entry, entry)[1]
        local job = found and found[2][2] ~= '' and found[2][2] or entry
        redis.call('XCLAIM', lane, group, parked, 0, entry, 'RETRYCOUNT', row[4] - 1, 'JUSTID')
        redis.call('ZADD', due, now, member)
        redis.call('XADD', log, '*', 'event', 'released', 'job', job, 'body',
          string.format('{"worker":"%s","reason":"%s"}', me, ARGV[5]))
        given = given + 1
      end
      if given >= page then return { given, 1 } end
    end
  until #rows < page
end

if ARGV[6] == '1' then
  for number = 1, 4 do redis.call('XGROUP', 'DELCONSUMER', KEYS[2 + number], group, me) end
  redis.call('ZREM', workers, me)
end
return { given, 0 }
