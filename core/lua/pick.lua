#!lua flags=no-writes
-- pick: the entries of a log at some positions.
--
-- KEYS    1 log
-- ARGV    1.. positions
-- Answer  the entries found, in the order of their positions, as XRANGE gives them
-- Promise reads only. One command for what would be as many.

local answer = {}
for _, position in ipairs(ARGV) do
  answer[#answer + 1] = redis.call('XRANGE', KEYS[1], position, position)[1]
end
return answer
