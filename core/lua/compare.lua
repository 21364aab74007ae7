#!lua flags=no-writes
-- compare: a page of one view against another one.
--
-- KEYS    1 the view that is walked through, a hash or a zset   2 the other
-- ARGV    1 cursor, as of HSCAN and ZSCAN   2 how many to look at, about
-- Answer  the next cursor, '0' at the end; how many were looked at; then each of these fields or members that
--         the other has not, or has with another value or score
-- Promise reads only, both at one moment; of what is the same nothing is sent. What is there from the first
--         page to the last one is looked at, as often as it may be.

local call = redis.call
local kind = call('TYPE', KEYS[1]).ok
local scan, get = 'HSCAN', 'HMGET'
if kind == 'zset' then scan, get = 'ZSCAN', 'ZMSCORE' end
if kind == 'none' then return { '0', 0 } end

local page = call(scan, KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local found = page[2]
local answer = { page[1], #found / 2 }
local other = call('TYPE', KEYS[2]).ok == kind

for from = 1, #found, 1000 do
  local upto = math.min(from + 999, #found)
  local names = {}
  for at = from, upto, 2 do names[#names + 1] = found[at] end
  local values = other and call(get, KEYS[2], unpack(names)) or {}
  for at = from, upto, 2 do
    local value = values[(at - from) / 2 + 1]
    if not value or tostring(value) ~= found[at + 1] then answer[#answer + 1] = found[at] end
  end
end
return answer
