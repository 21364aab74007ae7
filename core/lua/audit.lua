#!lua flags=allow-oom
-- audit: look through what the scripts keep beside the log, a page at a time; and put right what is wrong.
--
-- KEYS    see entries.lua; then 18 facts
-- ARGV    see entries.lua; then 3 section   4 cursor ('' to begin)   5 how many to look at, about
--         6 '1' to put right what is wrong, '0' to look only   7 number of the lane, for the first three
-- Answer  the next cursor, '' at the end; how many were looked at; then of section
--         lane      each entry as a list: entry, job, spec, owner ('' if fresh), deliveries
--         absent    see below; ARGV 8.. are, for each job, how many entries it may stand in, and these:
--                   the number of each job that has none of them in any lane, nor pending
--         wake      nothing; ARGV 8.. are members of `due` and when each is due in Unix ms: those that are
--                   parked, and have no time and no turn, get it
--         others    each thing that is wrong: its name, and in which way (a word)
-- Promise all that belongs to one entry is looked at, and put right, at one moment, at which no script is half
--         way: so what is wrong there is wrong. Nothing that an entry in a lane needs is taken away; no job is
--         given out, ended or moved.

local section, page, mend, number = ARGV[3], tonumber(ARGV[5]), ARGV[6] == '1', tonumber(ARGV[7])
local cursor = ARGV[4]
local answer = { '', 0 }

local function wrong(name, how)
  answer[#answer + 1], answer[#answer + 2] = name, how
end

-- The entry that a member names: lane's number, entry, its fields (nil if it is in no lane), its owner.
local function look(member)
  local lane, entry = string.match(member, '^([1-4]):(%d+%-%d+)$')
  if not lane then return nil end
  lane = tonumber(lane)
  local fields = read(lane, entry)
  local row = fields and pending(lane, entry)
  return lane, entry, fields, row and row[2]
end

local function scan(command, key)
  local found = call(command, key, cursor == '' and '0' or cursor, 'COUNT', page)
  answer[1] = found[1] == '0' and '' or found[1]
  answer[2] = #found[2] / 2
  return found[2]
end

local function each(command, key, check)
  local found = scan(command, key)
  for at = 1, #found, 2 do check(found[at], found[at + 1]) end
end

local function lacks_entry(key, of)
  each('HSCAN', key, function(name, value)
    local _, _, fields = look(of and of(name, value) or name)
    if not fields then
      wrong(name, 'orphan')
      if mend then call('HDEL', key, name) end
    end
  end)
end

-- A consumer that gave a sign of life, or that a lane knows: others are told nothing any more.
local function consumers()
  local known = {}
  for lane = 1, LATER do
    for _, row in ipairs(call('XINFO', 'CONSUMERS', lane_of(lane), WORKERS_GROUP)) do known[row[2]] = true end
  end
  return known
end

local sections = {}

function sections.lane()
  local found = call('XRANGE', lane_of(number), cursor == '' and '-' or '(' .. cursor, '+', 'COUNT', page)
  for _, it in ipairs(found) do
    local fields, row = it[2], pending(number, it[1])
    answer[#answer + 1] = { it[1], fields[2] or '', fields[4] or '', row and row[2] or '', row and row[4] or 0 }
  end
  answer[1], answer[2] = #found == page and found[#found][1] or '', #found
end

-- Pending entries that are in no lane, and parked ones that nothing will wake.
function sections.pending()
  local found = call('XPENDING', lane_of(number), WORKERS_GROUP, cursor == '' and '-' or '(' .. cursor, '+', page)
  for _, row in ipairs(found) do
    local entry, member = row[1], number .. ':' .. row[1]
    local fields = read(number, entry)
    if not fields then
      wrong(member, 'orphan')
      if mend then
        call('XACK', lane_of(number), WORKERS_GROUP, entry)
        forget(number, entry)
      end
    elseif row[2] == PARKED and not call('ZSCORE', DUE, member) then
      if not call('ZSCORE', HELD, held_as(fields.group or '', member)) then
        wrong(member, 'asleep')
      end
    end
  end
  answer[1], answer[2] = #found == page and found[#found][1] or '', #found
end

function sections.due()
  each('ZSCAN', DUE, function(member)
    local _, _, fields, owner = look(member)
    if owner ~= PARKED then
      wrong(member, fields and 'awake' or 'orphan')
      if mend then call('ZREM', DUE, member) end
    end
  end)
end

function sections.held()
  each('ZSCAN', HELD, function(raw)
    local name, padded = string.match(raw, '^(.*)\31([^\31]*)$')
    local member = string.gsub(padded or '', ' +', '')
    local _, _, fields, owner = look(member)
    local how
    if owner ~= PARKED or (fields.group or '') ~= name then
      how = 'orphan'
    elseif call('ZSCORE', DUE, member) then
      how = 'twice'
    end
    if how then
      wrong(raw, how)
      if mend then
        call('ZREM', HELD, raw)
        call('HDEL', GROUP_OF, member)
      end
    elseif not call('ZSCORE', TURNS, name) then
      wrong(raw, 'turnless')
      if mend then call('ZADD', TURNS, 'NX', call('HINCRBY', CONTROL, 'turn', 1), name) end
    end
  end)
end

function sections.turns()
  each('ZSCAN', TURNS, function(name)
    if not first_held(name) then
      wrong(name, 'orphan')
      if mend then call('ZREM', TURNS, name) end
    end
  end)
end

function sections.group_of()
  each('HSCAN', GROUP_OF, function(member, name)
    local _, _, fields, owner = look(member)
    local waits = owner == PARKED and call('ZSCORE', HELD, held_as(name, member))
    if not fields or (fields.group or '') ~= name or not owner or (owner == PARKED and not waits) then
      wrong(member, 'orphan')
      if mend then call('HDEL', GROUP_OF, member) end
    end
  end)
end

-- How many of each group run: counted once more, all at one moment, if they are not too many for that.
function sections.groups()
  local counted, seen = {}, 0
  for lane = 1, LATER do
    for _, row in ipairs(call('XPENDING', lane_of(lane), WORKERS_GROUP)[4] or {}) do
      if row[1] ~= PARKED then
        seen = seen + tonumber(row[2])
        if seen > 10000 then return end
        for _, it in ipairs(call('XPENDING', lane_of(lane), WORKERS_GROUP, '-', '+', tonumber(row[2]), row[1])) do
          local name = call('HGET', GROUP_OF, lane .. ':' .. it[1])
          if name then counted[name] = (counted[name] or 0) + 1 end
        end
      end
    end
  end
  answer[2] = seen
  local told = call('HGETALL', GROUPS)
  for at = 1, #told, 2 do
    local name, count = told[at], counted[told[at]] or 0
    counted[name] = nil
    if told[at + 1] ~= tostring(count) then
      wrong(name, told[at + 1] .. ' of ' .. count)
      if mend and count > 0 then call('HSET', GROUPS, name, count) end
      if mend and count == 0 then call('HDEL', GROUPS, name) end
    end
  end
  for name, count in pairs(counted) do
    wrong(name, '0 of ' .. count)
    if mend then call('HSET', GROUPS, name, count) end
  end
end

function sections.unique()
  each('HSCAN', UNIQUE, function(key, value)
    local member = string.match(value, '^(%S+) %S+ %d+$') or ''
    local _, _, fields = look(member)
    if not fields or call('HGET', UNIQUE_OF, member) ~= key then
      wrong(key, 'orphan')
      if mend then call('HDEL', UNIQUE, key) end
    end
  end)
end

function sections.unique_of() lacks_entry(UNIQUE_OF) end

function sections.crashes() lacks_entry(CRASHES) end

function sections.told()
  local known
  each('HSCAN', TOLD, function(what, consumer)
    if call('ZSCORE', WORKERS, consumer) then return end
    known = known or consumers()
    if not known[consumer] then
      wrong(what, 'orphan')
      if mend then call('HDEL', TOLD, what) end
    end
  end)
end

function sections.facts()
  each('HSCAN', KEYS[18], function(consumer)
    if not call('ZSCORE', WORKERS, consumer) then
      wrong(consumer, 'orphan')
      if mend then call('HDEL', KEYS[18], consumer) end
    end
  end)
end

function sections.wake()
  for i = 8, #ARGV, 2 do
    local lane, entry, fields, owner = look(ARGV[i])
    if owner == PARKED and not call('ZSCORE', HELD, held_as(fields.group or '', ARGV[i])) then
      call('ZADD', DUE, 'NX', ARGV[i + 1], lane .. ':' .. entry)
    end
  end
end

function sections.absent()
  local job, at = 0, 8
  while at <= #ARGV do
    local last, there = at + tonumber(ARGV[at]), false
    for i = at + 1, last do
      for lane = 1, LATER do
        if #call('XRANGE', lane_of(lane), ARGV[i], ARGV[i]) > 0 then
          there = true
          break
        end
      end
      if there then break end
    end
    if not there then answer[#answer + 1] = job end
    job, at = job + 1, last + 1
  end
end

sections[section]()
return answer
