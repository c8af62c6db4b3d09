-- A sign of life of one limiter, which is also a write: a server that cannot
-- write cannot count.
-- KEYS[1]  the limiters, by when they were last heard of (us)
-- ARGV[1]  this limiter; ARGV[2] how long one is alive (us)
-- Returns how many are alive.
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('PEXPIRE', KEYS[1], math.floor(ARGV[2] / 1000))
return redis.call('ZCARD', KEYS[1])
