#!lua
-- requeue: take up the ends of jobs: run them again, or lay failed ones to rest; each end once.
--
-- KEYS    see entries.lua; then 18.. a marker for each job, named after the end it is requeued from
-- ARGV    see entries.lua; then 3 life of a marker, ms; then 5 for each job: its position, position
--         of the terminal event, lane, extra ('' or JSON: group; ttl in ms), body of the `requeued`
--         event (a whole `submitted` body, and from which end it is taken up); or lane 0 and the
--         body of a `cancelled` event, for failed jobs only
-- Answer  for each job the position of its event; with '=' in front where this end had
--         been taken up before; '' where the log holds no such end
-- Promise asked twice, by two people or after a lost answer, a job runs again once.

local answer = {}
for at = 4, #ARGV, 5 do
  local job, ended, marker = ARGV[at], ARGV[at + 1], KEYS[17 + (at + 1) / 5]
  local first = call('GET', marker)
  local event = not first and call('XRANGE', LOG, ended, ended)[1]
  local tag = event and event[2][4] == job and event[2][2]
  if first then
    answer[#answer + 1] = '=' .. first
  elseif ARGV[at + 2] == '0' and tag == 'failed' then
    local id = append('cancelled', job, ARGV[at + 4])
    call('SET', marker, id, 'PX', ARGV[3])
    answer[#answer + 1] = id
  elseif ARGV[at + 2] ~= '0' and (tag == 'failed' or tag == 'cancelled' or tag == 'completed') then
    local extra = ARGV[at + 3] ~= '' and cjson.decode(ARGV[at + 3]) or nil
    local id = append('requeued', job, ARGV[at + 4])
    place(tonumber(ARGV[at + 2]), id, job, '', '', extra)
    call('SET', marker, id, 'PX', ARGV[3])
    answer[#answer + 1] = id
  else
    answer[#answer + 1] = ''
  end
end
return answer
