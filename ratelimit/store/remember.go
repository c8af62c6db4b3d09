package store

import (
	"tollgate/ratelimit/engine"
)

// askAgain is how long the shared store is not asked about a counter that it
// said is spent: one request then goes there, so that a counter which an
// operator deleted, or a limit given back, shows within that time. Microseconds.
const askAgain = 1_000_000

// refused reports whether a counter that is known to be spent refuses the
// request; then it has the readings of what is known. Nothing moves.
func (m *Memory) refused(at int64, cells []engine.Cell) ([]engine.Reading, bool) {
	var h held
	m.lock(&h, cells)
	defer h.unlock()
	spent := false
	for i := range cells {
		c := &cells[i]
		if c.Shadow {
			continue
		}
		s := &m.shard[h.place[i]]
		known, ok := s.counters[c.Key]
		if !ok || known.local || c.Rate.Fits(known.state, at, c.Cost) {
			continue
		}
		if since := at - known.checked; since >= askAgain || since < 0 { // below 0: the clock stepped back
			known.checked = at
			s.counters[c.Key] = known
			return nil, false
		}
		spent = true
	}
	if !spent {
		return nil, false
	}
	readings := make([]engine.Reading, len(cells))
	for i := range cells {
		c := &cells[i]
		readings[i].Allowed = true
		if known, ok := m.shard[h.place[i]].counters[c.Key]; ok && !known.local {
			readings[i] = c.Rate.Read(c.Rate.At(known.state, at), at, c.Cost, c.Rate.Fits(known.state, at, c.Cost))
		}
	}
	return readings, true
}

// learn remembers counters as the shared store left them, where there is room.
func (m *Memory) learn(now int64, counters map[string]Remembered, debts *ledger) {
	var cell [1]engine.Cell
	for key, r := range counters {
		cell[0] = engine.Cell{Key: key, Rule: r.Rule, Rate: r.Rate}
		state := debts.with(key, r, now)
		var h held
		m.lock(&h, cell[:])
		s := &m.shard[h.place[0]]
		if _, known := s.counters[key]; known || s.makeRoom(cell[0].Rule, m.most, now) {
			s.put(key, &cell[0], state, now, false)
		}
		h.unlock()
	}
}

// shareOf returns what a limiter may start from in an outage: its share of what
// was left when the counter was last seen.
func shareOf(whole *engine.Rate, c *counter, at int64, n int) engine.State {
	return whole.ShareState(whole.At(c.state, at), at, n)
}

// shares returns cells with the rates of one of n limiters.
func shares(cells []engine.Cell, n int) []engine.Cell {
	out := make([]engine.Cell, len(cells))
	for i := range cells {
		out[i] = cells[i]
		out[i].Rate = cells[i].Rate.Share(n)
	}
	return out
}
