#!lua flags=allow-oom
-- shadow_switch: put views that were made anew in the place of those in use.
--
-- KEYS    1 readers   2 folders   3 base   4 log   5 checkpoint in use   6 checkpoint of the shadow; then
--         pairs: a view in use, and its shadow
-- ARGV    1 name of the shadow among the readers   2 the shadow's checkpoint when the pairs were made up ('' for
--         none)
-- Answer  1 if the views were exchanged; else nothing was written: 0 the shadow is behind the views in use, or
--         moved on meanwhile; -1 there is no shadow any more
-- Promise all views and the checkpoint are exchanged in one step, and states never go back: the new views have
--         seen all that the old ones had. A checkpoint that is no place in this log (a foreign hand) holds
--         nothing up. Whoever folded into the old views is refused from now on, and loads again.

local call = redis.call

local function parts(position)
  local ms, seq = string.match(position or '', '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function is_before(one, other)
  local ms, seq = parts(one)
  local other_ms, other_seq = parts(other)
  return ms < other_ms or (ms == other_ms and seq < other_seq)
end

if call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return -1 end
local shadow = call('GET', KEYS[6]) or ''
if shadow ~= ARGV[2] then return 0 end

local newest = call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1]
if newest then
  if shadow == '' then return 0 end
  local used = call('TYPE', KEYS[5]).ok == 'string' and call('GET', KEYS[5])
  local sound = used and parts(used) and not is_before(newest[1], used)
  if sound and is_before(shadow, used) then return 0 end
end

for at = 7, #KEYS, 2 do
  call('UNLINK', KEYS[at])
  if call('EXISTS', KEYS[at + 1]) == 1 then call('RENAME', KEYS[at + 1], KEYS[at]) end
end
call('HDEL', KEYS[1], ARGV[1])
call('UNLINK', KEYS[2])
call('HINCRBY', KEYS[3], 'begun', 1)
return 1
