#!lua
-- shadow_enter: begin to make views anew beside those in use, or join who does.
--
-- KEYS    1 readers   2 folders   3 base   4.. what may be left of a shadow nobody holds any more
-- ARGV    1 name of the shadow among the readers   2 who enters   3 for how many ms it may be silent
-- Answer  1 if there is a shadow to go on with, else 0; how often views had been begun or exchanged
-- Promise from the first moment on nothing is trimmed that the shadow has not seen: its place in the log
--         stands among the readers before its fold reads the base. Nobody else's page, read for an
--         earlier shadow, can be written into this one: `begun` counts up.

local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local there = call('HEXISTS', KEYS[1], ARGV[1])
if there == 0 then
  call('DEL', KEYS[2])
  for at = 4, #KEYS do call('UNLINK', KEYS[at]) end
  call('HSET', KEYS[1], ARGV[1], '0-0')
  call('HINCRBY', KEYS[3], 'begun', 1)
end
call('ZADD', KEYS[2], now + tonumber(ARGV[3]), ARGV[2])
return { there, tonumber(call('HGET', KEYS[3], 'begun') or 0) }
