#!lua flags=allow-oom
-- drain: cancel what waits in one lane, a page at a time; what runs goes on.
--
-- KEYS    see entries.lua
-- ARGV    see entries.lua; then 3 body of the `cancelled` events   4 number of the lane
--         5 entry to begin after ('0-0' for the first)   6 entry to end with ('' for the newest one
--         there is now)   7 page size
-- Answer  how many were cancelled; the entry reached, '' if the lane was looked through; the entry
--         to end with
-- Promise whatever came into the lane after the first page stays, so this comes to an end however
--         fast others submit. A job that a worker has begun is left alone.

local number, last = tonumber(ARGV[4]), ARGV[6]
local lane, page = lane_of(number), tonumber(ARGV[7])

if last == '' then
  local newest = call('XREVRANGE', lane, '+', '-', 'COUNT', 1)[1]
  if not newest then return { 0, '', '' } end
  last = newest[1]
end

local cancelled, reached = 0, ''
local found = call('XRANGE', lane, '(' .. ARGV[5], last, 'COUNT', page)
for _, it in ipairs(found) do
  local entry, job = it[1], it[2][2]
  local row = pending(number, entry)
  if not row or row[2] == PARKED then
    withdraw(number, entry, row)
    append('cancelled', job ~= '' and job or entry, ARGV[3])
    cancelled = cancelled + 1
  end
  reached = entry
end
return { cancelled, #found == page and reached or '', last }
