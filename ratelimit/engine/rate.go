// Package engine is the arithmetic of limits: what one counter says to one
// request, and what all counters of a request decide together. It does no I/O
// and never reads the clock. Invariant: a request takes from every counter it
// touches or from none, and no counter ever admits more than its rate allows.
package engine

import (
	"fmt"
	"time"
)

// Algorithm is how a rate counts.
type Algorithm uint8

// The algorithms.
const (
	Fixed Algorithm = iota // windows that follow each other without a gap: see Calendar
	GCRA                   // a bucket of Burst that refills evenly
)

// Bounds that keep every number exact in a float64, which is what a Redis
// script computes with.
const (
	MaxLimit     = 1<<53 - 1
	MinWindow    = time.Millisecond
	MaxWindow    = 3660 * 24 * time.Hour
	MaxTolerance = 100 * 24 * time.Hour
)

// Rate is a validated number of requests per window. Make one with NewFixed or
// NewGCRA.
type Rate struct {
	Algorithm Algorithm
	Calendar  Calendar // fixed: where windows begin
	Limit     uint64
	Window    time.Duration // of a month: 30 days, in name only
	Interval  time.Duration // GCRA: what one request costs in time, rounded up
	Tolerance time.Duration // GCRA: how much time may be owed, burst × Interval
}

// NewFixed returns a rate that counts in fixed windows.
func NewFixed(limit uint64, window time.Duration) (Rate, error) {
	r := Rate{Algorithm: Fixed, Limit: limit, Window: window}
	return r, r.check()
}

// NewCalendar returns a rate that counts in weeks or months of UTC.
func NewCalendar(limit uint64, c Calendar) (Rate, error) {
	r := Rate{Algorithm: Fixed, Calendar: c, Limit: limit, Window: week}
	if c == Month {
		r.Window = 30 * day
	}
	return r, r.check()
}

// NewGCRA returns a rate that spreads limit evenly over window and lets burst
// requests come at once; a burst of 0 means limit.
func NewGCRA(limit uint64, window time.Duration, burst uint64) (Rate, error) {
	r := Rate{Algorithm: GCRA, Limit: limit, Window: window, Interval: window}
	if err := r.check(); err != nil || limit == 0 {
		return r, err
	}
	if burst == 0 {
		burst = limit
	}
	r.Interval = time.Duration((uint64(window) + limit - 1) / limit)
	if burst > uint64(MaxTolerance/r.Interval) {
		return r, fmt.Errorf("a burst of %d at %d per %s takes over %d days to refill: choose a smaller burst",
			burst, limit, window, MaxTolerance/(24*time.Hour))
	}
	r.Tolerance = time.Duration(burst) * r.Interval
	return r, nil
}

func (r Rate) check() error {
	if r.Limit > MaxLimit {
		return fmt.Errorf("limit %d is too large: at most %d", r.Limit, uint64(MaxLimit))
	}
	if r.Window < MinWindow || r.Window > MaxWindow || r.Window%time.Microsecond != 0 {
		return fmt.Errorf("window %s: choose whole microseconds from %s to %d days", r.Window, MinWindow, MaxWindow/(24*time.Hour))
	}
	return nil
}

// State is one counter. The zero value has counted nothing. Fixed: Mark is the
// start of the window in microseconds since the epoch, Used what it has
// counted. GCRA: Mark is the theoretical arrival time in nanoseconds.
type State struct {
	Mark int64
	Used uint64
}

// At returns the counter as it stands at now (microseconds since the epoch).
// A clock that steps back must not hand out a second helping: into the window
// before, the counter keeps its place; further, what it has counted counts in
// the window that the clock stands in now. See Ahead.
func (r Rate) At(s State, now int64) State {
	if r.Algorithm == GCRA {
		owed := min(max(s.Mark-now*1000, 0), int64(r.Tolerance))
		return State{Mark: now*1000 + owed}
	}
	start, end := r.window(now)
	switch {
	case s.Mark == start || s.Mark == end:
		return s
	case s.Mark > end:
		return State{Mark: start, Used: s.Used}
	}
	return State{Mark: start}
}

// Ahead reports whether a counter stands further in the future than its rate
// lets it, which it does after the clock has stepped back. Whoever keeps it must
// then keep what At returns, even if nothing is taken: kept as it is, it would
// refuse until the clock has come as far again.
func (r Rate) Ahead(s State, now int64) bool {
	if r.Algorithm == GCRA {
		return s.Mark-now*1000 > int64(r.Tolerance)
	}
	_, end := r.window(now)
	return s.Mark > end
}

// take returns the counter after cost hits, and whether they fit. A cost of 0
// takes nothing and asks whether one hit would fit. s stands at now.
func (r Rate) take(s State, now int64, cost uint64) (State, bool) {
	asked := max(cost, 1)
	if r.Algorithm == GCRA {
		room := uint64(int64(r.Tolerance) - (s.Mark - now*1000))
		if asked > room/uint64(r.Interval) {
			return s, false
		}
		return State{Mark: s.Mark + int64(cost)*int64(r.Interval)}, true
	}
	if s.Used > r.Limit || asked > r.Limit-s.Used {
		return s, false
	}
	return State{Mark: s.Mark, Used: s.Used + cost}, true
}

// Expiry returns when the counter may be forgotten, in microseconds since the
// epoch.
func (r Rate) Expiry(s State) int64 {
	if r.Algorithm == GCRA {
		return s.Mark/1000 + 1
	}
	_, end := r.window(s.Mark)
	return end
}

// Reading is what one counter said to one request.
type Reading struct {
	// Known is false when nothing was counted because the store failed and
	// the limit says to admit then.
	Known      bool
	Allowed    bool
	Remaining  uint64        // hits that would still be admitted now
	Reset      time.Duration // until the window ends, or the bucket is full
	RetryAfter time.Duration // refused: until the same request would fit
}

// Read returns what a counter that stands at now says to a request of cost.
// A request that can never fit is told to wait as if for a new window.
func (r Rate) Read(s State, now int64, cost uint64, allowed bool) Reading {
	reading := Reading{Known: true, Allowed: allowed}
	if r.Algorithm == GCRA {
		owed := time.Duration(s.Mark - now*1000)
		reading.Remaining = uint64((r.Tolerance - owed) / r.Interval)
		reading.Reset = owed
		if !allowed {
			reading.RetryAfter = r.Interval
			if asked := max(cost, 1); asked <= uint64(r.Tolerance/r.Interval) {
				reading.RetryAfter = owed + time.Duration(asked)*r.Interval - r.Tolerance
			} else if r.Tolerance > 0 {
				reading.RetryAfter = r.Tolerance
			}
		}
		return reading
	}
	if s.Used < r.Limit {
		reading.Remaining = r.Limit - s.Used
	}
	reading.Reset = time.Duration(r.Expiry(s)-now) * time.Microsecond
	if !allowed {
		reading.RetryAfter = reading.Reset
	}
	return reading
}

// Seconds rounds up to whole seconds: a client told to come back must not be
// early.
func Seconds(d time.Duration) int64 {
	return int64((d + time.Second - 1) / time.Second)
}
