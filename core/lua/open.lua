#!lua flags=allow-oom
-- open: make a partition ready for work, or find that it is.
--
-- KEYS    1 epoch   2..5 lanes high, normal, low, later
-- ARGV    1 group   2 a fresh random token
-- Answer  the partition's epoch
-- Promise the epoch exists if and only if every lane has its group: they come and go together
--         (a restore, a failover or FLUSHALL takes both or none), so one EXISTS tells every other
--         script whether it may go on. Groups begin at 0: finished entries are deleted, so what a
--         lane still holds is work, and `$` would lose it.

for lane = 2, 5 do
  local made = redis.pcall('XGROUP', 'CREATE', KEYS[lane], ARGV[1], '0', 'MKSTREAM')
  if type(made) == 'table' and made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then
    return made
  end
end
redis.call('SET', KEYS[1], ARGV[2], 'NX')
return redis.call('GET', KEYS[1])
