#!lua flags=allow-oom
-- beat: a sign of life; what the consumer must know, and who gave none for a lease.
--
-- KEYS    1 epoch   2 workers   3 told   4 facts   5..8 lanes high, normal, low, later
-- ARGV    1 consumer   2 lease in ms   3 '1' to enter as a new consumer, '0' to refresh
--         4 what the consumer says of itself, '' if nothing new   5 group   6 parked
-- Answer  1 if the consumer is alive, 0 if its lease ran out and it was dropped; how many things it is
--         told, and these: lane:entry of each of its entries that was cancelled, leave:consumer if it
--         is to leave; then the names of the consumers whose entries wait to be reclaimed: their lease
--         ran out, or they were dropped and a blocking read that was still under way made them again
-- Promise a consumer that was dropped never comes back under its old name: what it still runs can
--         complete, but can no longer be taken for the new attempt of the same job. Each thing is
--         told once. What a consumer says of itself is kept no longer than the consumer.

if redis.call('EXISTS', KEYS[1]) == 0 then return redis.error_reply('NOTOPEN partition') end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answer = { 1, 0 }
if ARGV[3] == '1' or redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  redis.call('ZADD', KEYS[2], now, ARGV[1])
  if ARGV[4] ~= '' then redis.call('HSET', KEYS[4], ARGV[1], ARGV[4]) end
else
  answer[1] = 0
end

local told = redis.call('HGETALL', KEYS[3])
for at = 1, #told, 2 do
  if told[at + 1] == ARGV[1] then
    redis.call('HDEL', KEYS[3], told[at])
    answer[2] = answer[2] + 1
    answer[#answer + 1] = told[at]
  end
end

for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - tonumber(ARGV[2]), 'LIMIT', 0, 100)) do
  answer[#answer + 1] = name
end

-- Who enters is in `workers` before its first read. So a consumer of a lane that is not there was
-- dropped, and what it was given since then nobody else would ever find.
local found = {}
for lane = 5, 8 do
  for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[lane], ARGV[5])) do
    local name = row[2]
    if name ~= ARGV[6] and not found[name] and not redis.call('ZSCORE', KEYS[2], name) then
      found[name] = true
      answer[#answer + 1] = name
    end
  end
end
return answer
