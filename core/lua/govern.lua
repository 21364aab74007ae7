#!lua flags=allow-oom
-- govern: pause or resume a queue, or set its limits.
--
-- KEYS    see entries.lua
-- ARGV    see entries.lua; then 3 tag (queue_paused, queue_resumed or queue_limited)   4 its body
--         5.. field and value of `control`, a value of '' takes the field away
-- Answer  position of the event; '' if everything was so already, and nothing was written
-- Promise event and effect are one step: who reads the log knows how the queue is governed.

local changed = false
for at = 5, #ARGV, 2 do
  local before = call('HGET', CONTROL, ARGV[at]) or ''
  if before ~= ARGV[at + 1] then
    changed = true
    if ARGV[at + 1] == '' then
      call('HDEL', CONTROL, ARGV[at])
    else
      call('HSET', CONTROL, ARGV[at], ARGV[at + 1])
    end
    -- A new rate begins with a full bucket.
    if ARGV[at] == 'rate' or ARGV[at] == 'burst' then call('HDEL', CONTROL, 'tokens', 'at') end
  end
end
return changed and append(ARGV[3], '', ARGV[4]) or ''
