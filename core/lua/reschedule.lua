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

-- The same job as a new entry: in another lane, or parked until its time.
local function place_anew(number, entry, fields, row, job)
  local member, extra = number .. ':' .. entry, { group = fields.group, ttl = fields.ttl }
  -- Its ttl counts from its time: from the new one if it gets one.
  if when == '=' then extra['until'] = fields['until'] end
  local crashes = any_crash and call('HGET', CRASHES, member)
  local key = any_unique and call('HGET', UNIQUE_OF, member)
  local holder = key and call('HGET', UNIQUE, key)
  withdraw(number, entry, row)
  local id = append('rescheduled', job, ARGV[5])
  local target, spec = lane > 0 and lane or number, fields.spec ~= '' and fields.spec or entry
  -- No worker reads `later`: what was delayed and is to run at once is due now.
  local at = when == '=' and '' or when == '' and target == LATER and string.format('%d', NOW) or when
  local placed = place(target, id, job, spec, at, extra) .. ':' .. id
  if crashes then call('HSET', CRASHES, placed, crashes) end
  if key then call('HSET', UNIQUE_OF, placed, key) end
  if holder and string.find(holder, member .. ' ', 1, true) == 1 then
    call('HSET', UNIQUE, key, placed .. string.sub(holder, #member + 1))
  end
end

-- Answers nil if the entry is nowhere.
local function change(job, entry)
  local number, fields, row = find(entry)
  if not number then return nil end
  if (row and row[2] ~= PARKED) or (when == '=' and lane == 0) then return 0 end
  local member = number .. ':' .. entry
  local has_time = row and call('ZSCORE', DUE, member)
  -- What has a time goes to workers by it, before all lanes: a priority has no effect. And what failed
  -- keeps its entry, which counts the attempts.
  if when == '=' and row and (has_time or row[4] > 0) then return 0 end
  if not row or row[4] == 0 then
    place_anew(number, entry, fields, row, job)
  else
    leave_group(member)
    append('rescheduled', job, ARGV[5])
    call('ZADD', DUE, due_at(when), member)
  end
  return 1
end

local answer, at = {}, 6
while at <= #ARGV do
  local job, count = ARGV[at], tonumber(ARGV[at + 1])
  local outcome = 0
  for i = at + 2, at + 1 + count do
    local done = change(job, ARGV[i])
    if done then
      outcome = done
      break
    end
  end
  answer[#answer + 1] = outcome
  at = at + 2 + count
end
return answer
