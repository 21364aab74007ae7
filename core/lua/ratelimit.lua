-- ratelimit: may one more request pass?
--
-- KEYS    1 rate limit of one API key or address
-- ARGV    1 µs between two requests at the steady rate   2 burst: how many may come at once
-- Answer  1 if it may pass else 0, how many more may pass now, µs until the next may pass (0: now),
--         µs until the whole burst may pass again
-- Promise however many processes ask, no more pass than the rate and the burst allow.
--
-- The generic cell rate algorithm (GCRA, "virtual scheduling", ITU-T I.371, annex A): all that is kept
-- is the time at which the bucket would be empty again, and the key expires then.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])

local arrival = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local spare = now + burst * interval - arrival
if spare < interval then
  return {0, 0, math.ceil(interval - spare), math.ceil(arrival - now)}
end
arrival = arrival + interval
redis.call('SET', KEYS[1], string.format('%.0f', arrival), 'PX', math.ceil((arrival - now) / 1000))
return {1, math.floor(spare / interval) - 1, 0, math.ceil(arrival - now)}
