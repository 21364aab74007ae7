#!lua
-- append: write facts into a log, once.
--
-- KEYS    1 log   2 epoch   3 token
-- ARGV    1 life of the token, ms   2 epoch to give where there is none; '' where `open` has to
--         3 position that must be the log's newest ('0-0' for an empty log), '' for any; then 3 for
--         each event: tag, job ('' if it begins something), body
-- Answer  the events' positions; an empty list, and nothing was written, if the log had moved on
-- Promise all events or none, next to one another. The token makes the call idempotent: whoever
--         lost the answer, or is another process that says the same, sends the token again and gets
--         the first answer. Of a partition this opens nothing but its log: it never makes a lane, and
--         where lanes belong to it, they and the epoch come first (NOTOPEN).

local call = redis.call
if call('EXISTS', KEYS[2]) == 0 then
  if ARGV[2] == '' then return redis.error_reply('NOTOPEN partition') end
  call('SET', KEYS[2], ARGV[2])
end

local known = call('GET', KEYS[3])
if known then return cjson.decode(known) end

if ARGV[3] ~= '' then
  local newest = call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  if (newest and newest[1] or '0-0') ~= ARGV[3] then return {} end
end

local answer = {}
for at = 4, #ARGV, 3 do
  answer[#answer + 1] =
    call('XADD', KEYS[1], '*', 'event', ARGV[at], 'job', ARGV[at + 1], 'body', ARGV[at + 2])
end
call('SET', KEYS[3], cjson.encode(answer), 'PX', ARGV[1])
return answer
