#!lua
-- reschedule: give jobs that have not started another time or another priority.
--
-- KEYS    see entries.lua
-- ARGV    see entries.lua; then 3 when ('' at once, '+ms' from now, 'ms' Unix time, '=' as it is)
--         4 lane ('0' as it is)   5 body of the `rescheduled` events; then for each job: its
--         position, how many entries it may stand in, and these, the newest first
-- Answer  for each job: 0 it has started or is over, 1 done
-- Promise the job keeps its attempts, and is at no moment in two lanes or in none.

local when, lane = ARGV[3], tonumber(ARGV[4])

-- The same job as a new entry: another lane, or parked until its time.
local function place_anew(number, entry, fields, row, job)
  local target = lane > 0 and lane or number
  local extra = { group = fields.group }
  if fields['until'] then extra.ttl = math.max(1, fields['until'] - NOW) end
  local key = any_unique and call('HGET', UNIQUE_OF, number .. ':' .. entry)
  local holder = key and call('HGET', UNIQUE, key)
  withdraw(number, entry, row)
  local id = append('rescheduled', job, ARGV[5])
  local placed = place(target, id, job, fields.spec ~= '' and fields.spec or entry, when == '=' and '' or when, extra)
  if holder then
    local member = placed .. ':' .. id
    call('HSET', UNIQUE, key, member .. string.match(holder, ' .*'))
    call('HSET', UNIQUE_OF, member, key)
  end
end

local function change(job, entry)
  local number, fields, row = find(entry)
  if not number then return false end
  if row and row[2] ~= PARKED then return true, 0 end
  if not row or (lane > 0 and row[4] == 0) then
    if row and when == '=' then
      -- A delayed job goes to workers by its time, before all lanes: its priority has no effect yet.
      return true, 0
    end
    place_anew(number, entry, fields, row, job)
  else
    local at = (when == '' or when == '=') and NOW or string.sub(when, 1, 1) == '+' and NOW + tonumber(when) or tonumber(when)
    append('rescheduled', job, ARGV[5])
    call('ZADD', DUE, at, number .. ':' .. entry)
  end
  return true, 1
end

local answer, at = {}, 6
while at <= #ARGV do
  local job, count = ARGV[at], tonumber(ARGV[at + 1])
  local outcome = 0
  for i = at + 2, at + 1 + count do
    local found, done = change(job, ARGV[i])
    if found then
      outcome = done
      break
    end
  end
  answer[#answer + 1] = outcome
  at = at + 2 + count
end
return answer
