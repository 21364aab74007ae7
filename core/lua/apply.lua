#!lua
-- apply: write what a page of the log makes of the views, if nobody else has.
--
-- KEYS    1 checkpoint   2 log   3 jobs   4 stats   5 minutes   6 base   7.. indexes
-- ARGV    1 checkpoint that the page began after ('0-0' for none)   2 position of its last event
--         3 stats   4 how often the views had been begun again   5 jobs whose rows change   6 those
--         rows, a line each   7 jobs to forget   8 number of minutes   9 number of minutes to forget;
--         then minute and value of each, and the forgotten ones; then for each index of KEYS the
--         members removed and those added. Jobs and members are places of 14 bytes, one after the other.
-- Answer  1 if it was written; 0 if not, and then nothing was: the checkpoint is not where the page
--         began (another projector was faster, or the views were begun again), or the log does not hold
--         the page's last event (the server went back to an older state after it was read)
-- Promise rows, indexes, stats, minutes and checkpoint move in one step, so the views are at any
--         moment the fold of the log up to the checkpoint, and each event is in them once. It asks
--         for no epoch, so never answers NOTOPEN: a log can be folded whether or not its lanes
--         take work, and a log that was lost fails the test above. What could fail is looked at
--         before anything is written: a view that a foreign hand made something else is answered
--         with an error, and when memory is short the script does not run at all. At most 2,000
--         rows, and members of an index, and 3,900 minutes (`unpack` ends near 8,000).

local call = redis.call

if (call('GET', KEYS[1]) or '0-0') ~= ARGV[1] then return 0 end
-- Between two of the same checkpoint the log may have been trimmed, if the views were begun again.
if (call('HGET', KEYS[6], 'begun') or '0') ~= ARGV[4] then return 0 end
if #call('XRANGE', KEYS[2], ARGV[2], ARGV[2]) == 0 then return 0 end

for number = 3, #KEYS do
  local kind = call('TYPE', KEYS[number]).ok
  local due = (number == 3 or number == 5 or number == 6) and 'hash' or number == 4 and 'string' or 'zset'
  if kind ~= due and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[number] .. ' is a ' .. kind .. ', not a ' .. due)
  end
end

-- The places of a text, each after `before`, if that is given, or before the next of `texts`.
local function places(text, before, texts)
  local found = {}
  for at = 1, #text, 14 do
    if before then found[#found + 1] = before end
    found[#found + 1] = string.sub(text, at, at + 13)
    if texts then found[#found + 1] = texts() end
  end
  return found
end

local minutes, forgotten = 2 * tonumber(ARGV[8]), tonumber(ARGV[9])
if minutes > 0 then call('HSET', KEYS[5], unpack(ARGV, 10, 9 + minutes)) end
if forgotten > 0 then call('HDEL', KEYS[5], unpack(ARGV, 10 + minutes, 9 + minutes + forgotten)) end

local at = 10 + minutes + forgotten
for index = 7, #KEYS do
  if ARGV[at] ~= '' then call('ZREM', KEYS[index], unpack(places(ARGV[at]))) end
  if ARGV[at + 1] ~= '' then call('ZADD', KEYS[index], unpack(places(ARGV[at + 1], '0'))) end
  at = at + 2
end

if ARGV[5] ~= '' then call('HSET', KEYS[3], unpack(places(ARGV[5], nil, string.gmatch(ARGV[6], '[^\n]+')))) end
if ARGV[7] ~= '' then call('HDEL', KEYS[3], unpack(places(ARGV[7]))) end
call('SET', KEYS[4], ARGV[3])
call('SET', KEYS[1], ARGV[2])
return 1
