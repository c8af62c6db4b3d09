-- One request against all of its counters: engine.Decide, inside Redis.
-- KEYS     one counter each
-- ARGV[1]  now in microseconds since the epoch; "" asks Redis, so that all
--          limiters share one clock
-- then, for each key, one argument of five words, because every argument costs
-- more than its parsing:
--   "f cost limit window(us) shadow"   or   "g cost interval(ns) tolerance(ns) shadow"
-- A counter is "a:b": start of the window (us) and hits, or (GCRA) the time of
-- writing (us) and what was owed then (ns). All numbers stay below 2^53.
-- A counter is kept for a second after it has lost its meaning, so that a clock
-- set back a little finds it.
-- Returns now, then for each key: allowed (0 or 1), a, b.
local now
if ARGV[1] == '' then
  local t = redis.call('TIME')
  now = t[1] * 1000000 + t[2]
else
  now = tonumber(ARGV[1])
end

local held = redis.call('MGET', unpack(KEYS))
local cells = {}
local admitted = true
for i = 1, #KEYS do
  local kind, cost, x, y, shadow = string.match(ARGV[i + 1], '^(%a) (%d+) (%d+) (%d+) (%d)$')
  local c = {kind = kind, cost = tonumber(cost), x = tonumber(x), y = tonumber(y)}
  local a, b = string.match(held[i] or '', '^(%d+):(%d+)$')
  a, b = tonumber(a) or 0, tonumber(b) or 0
  local asked = math.max(c.cost, 1)
  if c.kind == 'g' then
    c.b = math.min(math.max(b - (now - a) * 1000, 0), c.y)
    c.a = now
    c.fits = asked * c.x <= c.y - c.b
  else
    local start = now - now % c.y
    if a ~= start and a ~= start + c.y then
      a, b = start, 0
    end
    c.a, c.b = a, b
    c.fits = b + asked <= c.x
  end
  if not c.fits and shadow == '0' then
    admitted = false
  end
  cells[i] = c
end

local answer = {now}
for i = 1, #KEYS do
  local c = cells[i]
  if admitted and c.fits and c.cost > 0 then
    local ttl
    if c.kind == 'g' then
      c.b = c.b + c.cost * c.x
      ttl = c.b / 1000000
    else
      c.b = c.b + c.cost
      ttl = (c.a + c.y - now) / 1000
    end
    redis.call('SET', KEYS[i], string.format('%.0f:%.0f', c.a, c.b), 'PX', string.format('%.0f', math.floor(ttl) + 1001))
  end
  answer[#answer + 1] = c.fits and 1 or 0
  answer[#answer + 1] = c.a
  answer[#answer + 1] = c.b
end
return answer
