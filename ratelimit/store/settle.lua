-- A batch of requests against all of their counters: engine.Decide for each in
-- turn, inside Redis, so that one trip serves every caller that waits.
-- KEYS     the distinct counters of the batch
-- ARGV[1]  now in microseconds since the epoch; "" asks Redis, so that all
--          limiters share one clock
-- ARGV[2]  for each key five doubles: kind, x, y, debt, mark
--            kind 0 fixed windows: x limit, y length (us); 1 the same from
--            Mondays; 2 months; 3 GCRA: x interval (ns), y tolerance (ns)
--            debt: hits that were counted elsewhere and are owed here whatever
--            the limit says; negative gives back. mark: the window that they
--            belong to (us), or (GCRA) when they are paid off (us).
-- ARGV[3]  for each request doubles: how many cells, then for each of them the
--          number of its key, its cost, 1 for a shadow
-- A counter is "a:b": start of the window (us) and hits, or (GCRA) the time of
-- writing (us) and what was owed then (ns). All numbers stay below 2^53.
-- A counter that stands further ahead than its rate lets it, after a clock has
-- stepped back, is written as engine.Rate.At says, whatever is decided.
-- A counter is kept for a second after it has lost its meaning, so that a clock
-- set back a little finds it.
-- Returns doubles: now; for each key a, b as they are in the end; for each cell
-- of each request: 1 if it fits, and a, b when it was asked.
local now
if ARGV[1] == '' then
  local t = redis.call('TIME')
  now = t[1] * 1000000 + t[2]
else
  now = tonumber(ARGV[1])
end
local DAY = 86400000000

-- The day on which a day's month begins: engine.firstOfMonth.
local function first(day)
  local e = (day + 719468) % 146097
  local y = math.floor((e - math.floor(e / 1460) + math.floor(e / 36524) - math.floor(e / 146096)) / 365)
  e = e - (365 * y + math.floor(y / 4) - math.floor(y / 100))
  return day - (e - math.floor((153 * math.floor((5 * e + 2) / 153) + 2) / 5))
end

local function window(kind, length)
  if kind == 2 then
    local start = first(math.floor(now / DAY))
    return start * DAY, first(start + 31) * DAY
  end
  local start = now - (now - (kind == 1 and 4 * DAY or 0)) % length
  return start, start + length
end

local unpacked, pack = struct.unpack, struct.pack
local held = redis.call('MGET', unpack(KEYS))
local counters = {}
local at = 1
for i = 1, #KEYS do
  local c = {}
  local debt, mark
  c.kind, c.x, c.y, debt, mark, at = unpacked('<ddddd', ARGV[2], at)
  local a, b = string.match(held[i] or '', '^(%d+):(%d+)$')
  a, b = tonumber(a) or 0, tonumber(b) or 0
  if c.kind == 3 then
    local owed = b - (now - a) * 1000
    c.changed = owed > c.y
    owed = math.min(owed, c.y)
    c.a, c.b = now, math.max(owed, 0)
    if debt ~= 0 then
      c.b = math.max(owed + debt * c.x, 0)
      if debt > 0 then
        c.b = math.max(c.b, (mark - now) * 1000)
      end
      c.b = math.min(c.b, c.y)
      c.changed = true
    end
  else
    local start, after = window(c.kind, c.y)
    if a > after then
      a, c.changed = start, true
    elseif a ~= start and a ~= after then
      a, b = start, 0
    end
    c.a, c.b, c.ends = a, b, (a == start) and after or (after + c.y)
    if debt ~= 0 and mark == a then
      c.b = math.max(b + debt, 0)
      c.changed = true
    end
  end
  counters[i] = c
end

local out = {}
at = 1
while at < #ARGV[3] do
  local n
  n, at = unpacked('<d', ARGV[3], at)
  local cells, admitted = {}, true
  for i = 1, n do
    local key, cost, shadow
    key, cost, shadow, at = unpacked('<ddd', ARGV[3], at)
    local c = counters[key]
    local asked = math.max(cost, 1)
    local fits
    if c.kind == 3 then
      fits = asked * c.x <= c.y - c.b
    else
      fits = c.b + asked <= c.x
    end
    if not fits and shadow == 0 then
      admitted = false
    end
    cells[i] = {c, cost, fits}
  end
  for i = 1, n do
    local c, cost, fits = cells[i][1], cells[i][2], cells[i][3]
    if admitted and fits and cost > 0 then
      c.b = c.b + (c.kind == 3 and cost * c.x or cost)
      c.changed = true
    end
    out[#out + 1] = pack('<ddd', fits and 1 or 0, c.a, c.b)
  end
end

local states = {}
for i = 1, #KEYS do
  local c = counters[i]
  if c.changed then
    local ttl = c.kind == 3 and c.b / 1000000 or (c.ends - now) / 1000
    redis.call('SET', KEYS[i], string.format('%.0f:%.0f', c.a, c.b), 'PX', string.format('%.0f', math.floor(ttl) + 1001))
  end
  states[i] = pack('<dd', c.a, c.b)
end
return pack('<d', now) .. table.concat(states) .. table.concat(out)
