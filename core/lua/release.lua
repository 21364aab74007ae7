#!lua flags=allow-oom
-- release: give back what a living consumer holds but does not run.
--
-- KEYS    see entries.lua; then 18 facts
-- ARGV    see entries.lua; then 3 consumer   4 page size   5 reason
--         6 '1' to drop the consumer at the end   7.. entries it does run, as lane:entry
-- Answer  entries given back; 1 if there is more, else 0
-- Promise an answer that was lost on the way (a broken connection, a blocking read cut short)
--         leaves entries pending that nobody runs. They are parked as due now, no attempt spent.

local me, page = ARGV[3], tonumber(ARGV[4])
local runs = {}
for i = 7, #ARGV do runs[ARGV[i]] = true end

local given = 0

local function give_back(number, entry, deliveries)
  local fields = read(number, entry)
  local job = fields and fields.job ~= '' and fields.job or entry
  leave_group(number .. ':' .. entry)
  park(number, entry, NOW, deliveries - 1)
  append('released', job, string.format('{"worker":"%s","reason":"%s"}', me, ARGV[5]))
  given = given + 1
end

for number = 1, LATER do
  local from = '-'
  repeat
    local rows = call('XPENDING', lane_of(number), WORKERS_GROUP, from, '+', page, me)
    for _, row in ipairs(rows) do
      from = '(' .. row[1]
      if not runs[number .. ':' .. row[1]] then give_back(number, row[1], row[4]) end
      if given >= page then return { given, 1 } end
    end
  until #rows < page
end

if ARGV[6] == '1' then
  for number = 1, LATER do call('XGROUP', 'DELCONSUMER', lane_of(number), WORKERS_GROUP, me) end
  call('ZREM', WORKERS, me)
  call('HDEL', KEYS[18], me)
  untell(me)
end
return { given, 0 }
