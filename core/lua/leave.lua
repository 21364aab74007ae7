#!lua flags=allow-oom
-- leave: ask a consumer to leave.
--
-- KEYS    1 log   2 workers   3 told
-- ARGV    1 consumer   2 body of the `worker_drained` event
-- Answer  1 it is told at its next sign of life; 0 it had been asked and was not told yet; -1 there
--         is no such consumer
-- Promise nobody who is gone is told anything, so `told` keeps nothing for ever.

local call = redis.call
if not call('ZSCORE', KEYS[2], ARGV[1]) then return -1 end
if call('HSETNX', KEYS[3], 'leave:' .. ARGV[1], ARGV[1]) == 0 then return 0 end
call('XADD', KEYS[1], '*', 'event', 'worker_drained', 'job', '', 'body', ARGV[2])
return 1
