#!lua flags=allow-oom
-- shadow_hold: a sign of life of who makes views anew; what they have seen may be trimmed.
--
-- KEYS    1 readers   2 folders   3 checkpoint of the shadow
-- ARGV    1 name of the shadow among the readers   2 who   3 for how many ms it may be silent
-- Answer  1; 0 if there is no shadow any more, and then nothing was written
-- Promise the place among the readers is never past the shadow's checkpoint.

local call = redis.call
if call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
local time = call('TIME')
call('ZADD', KEYS[2], time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[3]), ARGV[2])
call('HSET', KEYS[1], ARGV[1], call('GET', KEYS[3]) or '0-0')
return 1
