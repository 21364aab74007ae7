#!lua
-- restore: put a log that was brought from elsewhere in its place, if nothing is there.
--
-- KEYS    1 log   2 the log that was brought, whole   3 base   4 checkpoint
-- ARGV    1.. fields and values of the base that belongs to it
-- Answer  number of its events; or -1, and nothing was changed: there are events, or views or a base of
--         events that were
-- Promise the log is there with its base, or neither: nobody ever folds a part of it. Events keep their
--         ids. `begun` moves on, so who had loaded views of the empty log loads again (apply.lua).

local call = redis.call

local base = call('HLEN', KEYS[3]) - call('HEXISTS', KEYS[3], 'begun')
if call('XLEN', KEYS[1]) > 0 or call('EXISTS', KEYS[4]) == 1 or base > 0 then return -1 end

if call('EXISTS', KEYS[2]) == 1 then
  call('RENAME', KEYS[2], KEYS[1])
  call('PERSIST', KEYS[1])
end
for at = 1, #ARGV, 2 do call('HSET', KEYS[3], ARGV[at], ARGV[at + 1]) end
call('HINCRBY', KEYS[3], 'begun', 1)
return call('XLEN', KEYS[1])
