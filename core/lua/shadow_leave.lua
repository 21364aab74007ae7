#!lua flags=allow-oom
-- shadow_leave: who made views anew needs them no more; the last one takes them away.
--
-- KEYS    1 readers   2 folders   3 checkpoint of the shadow   4.. the rest of the shadow
-- ARGV    1 name of the shadow among the readers   2 who leaves, '' for nobody   3 the shadow's checkpoint
--         as the caller knows it ('' for none)   4 '1' to take the shadow away whoever holds it
-- Answer  1 if the shadow was taken away, 0 if somebody is still at it (gave a sign of life in time), -1 if
--         it moved on meanwhile: ask again
-- Promise a shadow that nobody works on ends, and holds back retention no longer than its makers' leases.

local call = redis.call
local time = call('TIME')
if ARGV[2] ~= '' then call('ZREM', KEYS[2], ARGV[2]) end
call('ZREMRANGEBYSCORE', KEYS[2], '-inf', time[1] * 1000 + math.floor(time[2] / 1000))
if ARGV[4] ~= '1' and call('EXISTS', KEYS[2]) == 1 then return 0 end
if (call('GET', KEYS[3]) or '') ~= ARGV[3] then return -1 end
for at = 2, #KEYS do call('UNLINK', KEYS[at]) end
call('HDEL', KEYS[1], ARGV[1])
return 1
