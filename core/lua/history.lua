#!lua flags=no-writes
-- history: one job's events in a stretch of the log, picked out on the server.
--
-- KEYS    1 log
-- ARGV    1 position to begin after   2 entries to look at   3 the job's position
-- Answer  the position reached; '1' if the end of the log was seen, else '0'; then the job's
--         entries as XRANGE gives them
-- Promise reads only. The views index every event they have seen, so this looks at no more than
--         the stretch that the views still lag behind.

local page, job = tonumber(ARGV[2]), ARGV[3]
local entries = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', page)
local answer = { ARGV[1], #entries < page and '1' or '0' }
for _, entry in ipairs(entries) do
  answer[1] = entry[1]
  if entry[2][4] == job or entry[1] == job then answer[#answer + 1] = entry end
end
return answer
