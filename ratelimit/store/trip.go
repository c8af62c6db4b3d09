package store

import (
	"context"

	"tollgate/ratelimit/engine"
)

// Trip is what one call to the shared store carries: all that waits.
type Trip struct {
	Requests [][]engine.Cell // decided in this order; none may be empty
	Debts    []Debt          // of distinct keys; booked before the first request
}

// Debt is what was counted for a key elsewhere, while the shared store did not
// answer, and is owed to it whatever the limit says.
type Debt struct {
	Key  string
	Rate engine.Rate
	Hits int64 // below 0: counted there for a request that was not admitted
	// Mark is the fixed window that the hits belong to; in another one they
	// mean nothing. GCRA: when they are paid off. Microseconds since the epoch.
	Mark int64
}

// Settled is the answer to a trip.
type Settled struct {
	Now      int64                 // the store's clock, microseconds since the epoch
	Readings [][]engine.Reading    // of each request
	Counters map[string]Remembered // every counter of the trip, as the trip left it
}

// Remembered is a counter as it was last seen.
type Remembered struct {
	Rate  engine.Rate
	Rule  string
	State engine.State
}

// Primary is a store that limiters share.
type Primary interface {
	// Settle decides a trip, once: what fails may have been counted.
	Settle(ctx context.Context, trip Trip) (Settled, error)
	// Beat shows that this limiter lives and that the store can be written to;
	// it returns how many limiters live.
	Beat(ctx context.Context) (limiters int, err error)
}

// ledger holds debts until a trip takes them along. It is bounded: what does
// not fit is forgiven.
type ledger struct {
	debts map[string]Debt
}

// maxDebts is how many counters an outage may touch with each of them made
// good afterwards: a few MB.
const maxDebts = 1 << 16

// owe books hits of a cell that were admitted at (microseconds since the epoch).
func (l *ledger) owe(c *engine.Cell, hits, at int64) {
	if hits == 0 {
		return
	}
	d, known := l.debts[c.Key]
	if !known && len(l.debts) >= maxDebts {
		return
	}
	now := c.Rate.At(engine.State{Mark: d.Mark}, at)
	if c.Rate.Algorithm == engine.Fixed {
		if now.Mark != d.Mark {
			d.Hits = 0
		}
		d.Mark = now.Mark
	} else if hits > 0 {
		d.Mark = max(d.Mark, at) + hits*int64(c.Rate.Interval)/1000
	}
	d.Key, d.Rate, d.Hits = c.Key, c.Rate, d.Hits+hits
	if d.Hits == 0 {
		delete(l.debts, c.Key)
		return
	}
	l.debts[c.Key] = d
}

// restore takes back what a trip did not deliver. Gifts are not taken back: a
// trip that failed may have been booked, and a limit errs on its own side.
func (l *ledger) restore(debts []Debt) {
	for _, d := range debts {
		if d.Hits < 0 {
			continue
		}
		switch newer, known := l.debts[d.Key]; {
		case !known:
		case d.Rate.Algorithm == engine.GCRA:
			d.Mark = max(newer.Mark, d.Mark+max(newer.Hits, 0)*int64(d.Rate.Interval)/1000)
			d.Hits += newer.Hits
		case newer.Mark == d.Mark:
			d.Hits += newer.Hits
		case newer.Mark > d.Mark:
			d = newer
		}
		l.debts[d.Key] = d
	}
}

// take removes the debts of the requests' counters, and others up to most.
func (l *ledger) take(requests [][]engine.Cell, most int) []Debt {
	if len(l.debts) == 0 {
		return nil
	}
	var taken []Debt
	for _, cells := range requests {
		for i := range cells {
			if d, owed := l.debts[cells[i].Key]; owed {
				taken = append(taken, d)
				delete(l.debts, d.Key)
			}
		}
	}
	for key, d := range l.debts {
		if len(taken) >= most {
			break
		}
		taken = append(taken, d)
		delete(l.debts, key)
	}
	return taken
}

// with returns a counter as it will be when its debt is booked.
func (l *ledger) with(key string, r Remembered, now int64) engine.State {
	d, owed := l.debts[key]
	s := r.Rate.At(r.State, now)
	switch {
	case !owed:
	case r.Rate.Algorithm == engine.GCRA:
		s.Mark = max(s.Mark+d.Hits*int64(r.Rate.Interval), now*1000)
		s.Mark = min(s.Mark, now*1000+int64(r.Rate.Tolerance))
		if d.Hits > 0 {
			s.Mark = max(s.Mark, d.Mark*1000)
		}
	case d.Mark == s.Mark:
		s.Used = uint64(max(int64(s.Used)+d.Hits, 0))
	case d.Mark > s.Mark: // a window that began after the shared store had looked
		s = engine.State{Mark: d.Mark, Used: uint64(max(d.Hits, 0))}
	}
	return s
}
