#!lua
-- submit: accept a batch of jobs, all or nothing, once.
--
-- KEYS    1 epoch   2 log   3..6 lanes high, normal, low, later   7 due   8 sender
--         9.. idempotency keys, in the order in which the jobs name them
-- ARGV    1 group   2 parked   3 batch number   4 life of a sender's memory, ms
--         5 life of an idempotency key, ms
--         then 4 for each job: lane (1..3), when ('' now, '+ms' after now, 'ms' Unix time),
--         1 if it has an idempotency key else 0, body of its `submitted` event
-- Answer  for each job its position; with '=' in front where an idempotency key was known and
--         the position is the first job's
-- Promise event and lane entry have one id and are written together. The batch number makes the
--         call idempotent: a producer that lost the answer sends the same batch again and gets
--         the same answer, and nothing is written twice. Batch numbers rise: a copy of an older
--         batch, late from a connection that broke, is refused.

if redis.call('EXISTS', KEYS[1]) == 0 then return redis.error_reply('NOTOPEN partition') end

local group, parked, batch = ARGV[1], ARGV[2], ARGV[3]
local log, due, sender = KEYS[2], KEYS[7], KEYS[8]

local last = redis.call('HMGET', sender, 'batch', 'answer')
if last[1] == batch then return cjson.decode(last[2]) end
if last[1] and tonumber(last[1]) > tonumber(batch) then return redis.error_reply('OLDBATCH answered long ago') end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answer, once = {}, 9

for job = 6, #ARGV, 4 do
  local lane, when, body = tonumber(ARGV[job]), ARGV[job + 1], ARGV[job + 3]
  local key, first
  if ARGV[job + 2] == '1' then
    key, once = KEYS[once], once + 1
    first = redis.call('GET', key)
  end
  if first then
    answer[#answer + 1] = '=' .. first
  else
    local id = redis.call('XADD', log, '*', 'event', 'submitted', 'job', '', 'body', body)
    if when == '' then
      redis.call('XADD', KEYS[2 + lane], id, 'job', '')
    else
      -- A delayed job is a parked pending entry: taken at once by nobody, claimed when due.
      local at = string.sub(when, 1, 1) == '+' and now + tonumber(when) or tonumber(when)
      redis.call('XADD', KEYS[6], id, 'job', '')
      redis.call('XREADGROUP', 'GROUP', group, parked, 'COUNT', 1, 'STREAMS', KEYS[6], '>')
      redis.call('XCLAIM', KEYS[6], group, parked, 0, id, 'RETRYCOUNT', 0, 'JUSTID')
      redis.call('ZADD', due, at, '4:' .. id)
    end
    if key then redis.call('SET', key, id, 'PX', ARGV[5]) end
    answer[#answer + 1] = id
  end
end

redis.call('HSET', sender, 'batch', batch, 'answer', cjson.encode(answer))
redis.call('PEXPIRE', sender, ARGV[4])
return answer
