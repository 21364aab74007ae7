#!lua flags=allow-oom
-- beat: a sign of life, and who gave none for a lease.
--
-- KEYS    1 epoch   2 workers
-- ARGV    1 consumer   2 lease in ms   3 '1' to enter as a new consumer, '0' to refresh
-- Answer  1 if the consumer is alive, 0 if its lease ran out and it was dropped; then the names
--         of the consumers whose lease ran out and whose entries wait to be reclaimed
-- Promise a consumer that was dropped never comes back under its old name: what it still runs can
--         complete, but can no longer be taken for the new attempt of the same job.

if redis.call('EXISTS', KEYS[1]) == 0 then return redis.error_reply('NOTOPEN partition') end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local alive = 1
if ARGV[3] == '1' or redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  redis.call('ZADD', KEYS[2], now, ARGV[1])
else
  alive = 0
end
local silent = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - tonumber(ARGV[2]), 'LIMIT', 0, 100)
table.insert(silent, 1, alive)
return silent
