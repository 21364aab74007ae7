#!lua flags=allow-oom
-- cancel: end jobs before their time, wherever they are.
--
-- KEYS    see entries.lua
-- ARGV    see entries.lua; then 3 body of the `cancelled` events; then for each job: its position,
--         how many entries it may stand in, and these, the newest first
-- Answer  for each job: 0 it is over already, 1 it waited, 2 it ran (its worker is told at the
--         next sign of life)
-- Promise the terminal event is appended at once and only if no other is: who still runs the job
--         comes too late.

local answer, at = {}, 4
while at <= #ARGV do
  local job, count = ARGV[at], tonumber(ARGV[at + 1])
  local outcome = 0
  for i = at + 2, at + 1 + count do
    local number, _, row = find(ARGV[i])
    if number then
      withdraw(number, ARGV[i], row)
      append('cancelled', job, ARGV[3])
      outcome = row and row[2] ~= PARKED and 2 or 1
      break
    end
  end
  answer[#answer + 1] = outcome
  at = at + 2 + count
end
return answer
