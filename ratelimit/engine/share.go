package engine

import "time"

// Share returns what one of n limiters may admit by itself while they cannot
// count together: an n-th of the rate, and at least one request a window, for
// a limit smaller than the fleet would otherwise admit nobody.
func (r Rate) Share(n int) Rate {
	if n <= 1 || r.Limit == 0 {
		return r
	}
	parts := uint64(n)
	if r.Algorithm == Fixed {
		r.Limit = max(r.Limit/parts, 1)
		return r
	}
	burst := max(uint64(r.Tolerance/r.Interval)/parts, 1)
	r.Interval = min(r.Interval*time.Duration(n), MaxTolerance/time.Duration(burst))
	r.Tolerance = time.Duration(burst) * r.Interval
	return r
}

// ShareState returns the counter, by the rate's share, that leaves an n-th of
// what s leaves by the whole rate, rounded down; one that has counted nothing
// leaves the whole share. s stands at now.
func (r Rate) ShareState(s State, now int64, n int) State {
	if n <= 1 || r.Limit == 0 {
		return s
	}
	part, parts := r.Share(n), uint64(n)
	switch {
	case r.Algorithm == GCRA && s.Mark <= now*1000, r.Algorithm == Fixed && s.Used == 0:
		return s
	case r.Algorithm == Fixed:
		left := (r.Limit - min(s.Used, r.Limit)) / parts
		return State{Mark: s.Mark, Used: part.Limit - min(left, part.Limit)}
	}
	left := uint64(int64(r.Tolerance)-(s.Mark-now*1000)) / uint64(r.Interval) / parts
	full := uint64(part.Tolerance / part.Interval)
	return State{Mark: now*1000 + int64(full-min(left, full))*int64(part.Interval)}
}

// Fits reports whether a request of cost would be admitted by a counter that
// was last seen as s; a cost of 0 asks for one hit. Counters only grow, so what
// does not fit an old state does not fit the present one either.
func (r Rate) Fits(s State, now int64, cost uint64) bool {
	_, fits := r.take(r.At(s, now), now, cost)
	return fits
}

// Spent reports how much of a counter is used, from 0 (nothing) to 255 (no
// further hit fits).
func (r Rate) Spent(s State, now int64) uint8 {
	s = r.At(s, now)
	if _, fits := r.take(s, now, 1); !fits {
		return 255
	}
	if r.Algorithm == GCRA {
		return uint8(254 * float64(s.Mark-now*1000) / float64(r.Tolerance))
	}
	return uint8(254 * float64(s.Used) / float64(r.Limit))
}
