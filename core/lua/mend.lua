#!lua
-- mend: give a job the entry that its story says it has, or take one away that it says it has not.
--
-- KEYS    see entries.lua
-- ARGV    see entries.lua; then 3 the job's position   4 position of its newest event that the caller knows
--         5 'withdraw' or 'place'; then
--         withdraw  lane, entry, body of a `failed` event ('' if the job has ended already)
--         place     state, attempts it has spent, when it is due in Unix ms, position of the event whose body
--                   says what to do, extra ('' or JSON: group; ttl in ms), its unique key ('' for none), body
--                   of a `released` event, body of a `rescheduled` one; then the entries it may stand in
-- Answer  1 if it was done; 0 if the job has moved on since, or stands as it should, and nothing was written
-- Promise the job moves by events, like any other, and whoever might still run it comes too late. The caller
--         has read the whole story: what came after the event it knows is looked through here, 20,000 events
--         at most.

local job, known, act = ARGV[3], ARGV[4], ARGV[5]

local function has_moved()
  local after = known
  for _ = 1, 20 do
    local found = call('XRANGE', LOG, '(' .. after, '+', 'COUNT', 1000)
    for _, it in ipairs(found) do
      if it[2][4] == job then return true end
      after = it[1]
    end
    if #found < 1000 then return false end
  end
  return true
end

local function withdrawn(number, entry, body)
  if not read(number, entry) then return 0 end
  withdraw(number, entry, pending(number, entry))
  if body ~= '' then append('failed', job, body) end
  return 1
end

local function placed(state, spent, when, spec, extra, unique, released, rescheduled)
  for i = 14, #ARGV do
    for number = 1, LATER do
      if read(number, ARGV[i]) then return 0 end
    end
  end
  for i = 14, #ARGV do
    for number = 1, LATER do
      call('XACK', lane_of(number), WORKERS_GROUP, ARGV[i])
      forget(number, ARGV[i])
    end
  end
  if state == 'active' then append('released', job, released) end
  local id = append('rescheduled', job, rescheduled)
  local at = math.max(NOW, when)
  local number = place(LATER, id, job, spec, string.format('%d', at), extra ~= '' and cjson.decode(extra) or nil)
  park(number, id, at, spent)
  if unique ~= '' then
    local holder, member = call('HGET', UNIQUE, unique), number .. ':' .. id
    local mine = holder and string.match(holder, '^%S+ ' .. string.gsub(job, '%-', '%%-') .. ' (%d+)$')
    if mine then
      call('HSET', UNIQUE, unique, string.format('%s %s %s', member, job, mine))
      call('HSET', UNIQUE_OF, member, unique)
    end
  end
  return 1
end

if has_moved() then return 0 end
if act == 'withdraw' then return withdrawn(tonumber(ARGV[6]), ARGV[7], ARGV[8]) end
return placed(ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9], ARGV[10], ARGV[11], ARGV[12], ARGV[13])
