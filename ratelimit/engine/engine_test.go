package engine_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"tollgate/ratelimit/engine"
)

// start is a multiple of every window up to a month that the tests use.
const start = int64(1_767_225_600_000_000) / 86_400_000_000 * 86_400_000_000

// fataler is a *testing.T or a *rapid.T.
type fataler interface {
	Helper()
	Fatal(args ...any)
}

func fixed(t fataler, limit uint64, window time.Duration) engine.Rate {
	t.Helper()
	r, err := engine.NewFixed(limit, window)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func gcra(t fataler, limit uint64, window time.Duration, burst uint64) engine.Rate {
	t.Helper()
	r, err := engine.NewGCRA(limit, window, burst)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func one(s *engine.State, r engine.Rate, now int64, cost uint64) engine.Reading {
	states, readings := []engine.State{*s}, make([]engine.Reading, 1)
	engine.Decide(now, []engine.Cell{{Rate: r, Cost: cost}}, states, readings)
	*s = states[0]
	return readings[0]
}

func TestReading(t *testing.T) {
	minute := int64(time.Minute / time.Microsecond)
	second := int64(time.Second / time.Microsecond)
	type step struct {
		at   int64 // after start, microseconds
		cost uint64
		want engine.Reading
	}
	tests := []struct {
		name  string
		rate  engine.Rate
		steps []step
	}{
		{"fixed fills, refuses, starts again", fixed(t, 2, time.Minute), []step{
			{15 * second, 1, engine.Reading{Known: true, Allowed: true, Remaining: 1, Reset: 45 * time.Second}},
			{16 * second, 1, engine.Reading{Known: true, Allowed: true, Remaining: 0, Reset: 44 * time.Second}},
			{minute - 1, 1, engine.Reading{Known: true, Reset: time.Microsecond, RetryAfter: time.Microsecond}},
			{minute, 1, engine.Reading{Known: true, Allowed: true, Remaining: 1, Reset: time.Minute}},
		}},
		{"fixed keeps its count when the clock steps back", fixed(t, 1, time.Minute), []step{
			{minute, 1, engine.Reading{Known: true, Allowed: true, Reset: time.Minute}},
			{minute - 1, 1, engine.Reading{Known: true, Reset: time.Minute + time.Microsecond, RetryAfter: time.Minute + time.Microsecond}},
		}},
		{"fixed refuses a cost that does not fit and keeps the rest", fixed(t, 5, time.Minute), []step{
			{0, 3, engine.Reading{Known: true, Allowed: true, Remaining: 2, Reset: time.Minute}},
			{0, 3, engine.Reading{Known: true, Remaining: 2, Reset: time.Minute, RetryAfter: time.Minute}},
			{0, 2, engine.Reading{Known: true, Allowed: true, Remaining: 0, Reset: time.Minute}},
		}},
		{"a cost of 0 asks and takes nothing", fixed(t, 1, time.Minute), []step{
			{0, 0, engine.Reading{Known: true, Allowed: true, Remaining: 1, Reset: time.Minute}},
			{0, 1, engine.Reading{Known: true, Allowed: true, Remaining: 0, Reset: time.Minute}},
			{0, 0, engine.Reading{Known: true, Remaining: 0, Reset: time.Minute, RetryAfter: time.Minute}},
		}},
		{"a limit of 0 admits nothing", fixed(t, 0, time.Minute), []step{
			{0, 1, engine.Reading{Known: true, Reset: time.Minute, RetryAfter: time.Minute}},
		}},
		{"gcra gives a burst, then one an interval", gcra(t, 60, time.Minute, 2), []step{
			{0, 1, engine.Reading{Known: true, Allowed: true, Remaining: 1, Reset: time.Second}},
			{0, 1, engine.Reading{Known: true, Allowed: true, Remaining: 0, Reset: 2 * time.Second}},
			{second / 2, 1, engine.Reading{Known: true, Remaining: 0, Reset: 1500 * time.Millisecond, RetryAfter: 500 * time.Millisecond}},
			{second, 1, engine.Reading{Known: true, Allowed: true, Remaining: 0, Reset: 2 * time.Second}},
			{4 * second, 2, engine.Reading{Known: true, Allowed: true, Remaining: 0, Reset: 2 * time.Second}},
		}},
		{"gcra never fits more than the burst", gcra(t, 60, time.Minute, 2), []step{
			{0, 3, engine.Reading{Known: true, Remaining: 2, RetryAfter: 2 * time.Second}},
			{0, engine.MaxLimit, engine.Reading{Known: true, Remaining: 2, RetryAfter: 2 * time.Second}},
		}},
		{"a gcra limit of 0 admits nothing", gcra(t, 0, time.Minute, 0), []step{
			{0, 1, engine.Reading{Known: true, RetryAfter: time.Minute}},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var s engine.State
			for i, step := range test.steps {
				if got := one(&s, test.rate, start+step.at, step.cost); got != step.want {
					t.Fatalf("step %d: got %+v, want %+v", i, got, step.want)
				}
			}
		})
	}
}

func TestRateBounds(t *testing.T) {
	tests := []struct {
		name    string
		make    func() (engine.Rate, error)
		refused bool
	}{
		{"a month of a million", func() (engine.Rate, error) { return engine.NewGCRA(1e6, 720*time.Hour, 0) }, false},
		{"three months' burst", func() (engine.Rate, error) { return engine.NewGCRA(1e6, 720*time.Hour, 3e6) }, false},
		{"four months' burst", func() (engine.Rate, error) { return engine.NewGCRA(1e6, 720*time.Hour, 4e6) }, true},
		{"no window", func() (engine.Rate, error) { return engine.NewFixed(1, 0) }, true},
		{"negative window", func() (engine.Rate, error) { return engine.NewGCRA(1, -time.Second, 1) }, true},
		{"nanoseconds", func() (engine.Rate, error) { return engine.NewFixed(1, time.Second+1) }, true},
		{"eleven years", func() (engine.Rate, error) { return engine.NewFixed(1, 11*8760*time.Hour) }, true},
		{"beyond a float64", func() (engine.Rate, error) { return engine.NewFixed(1<<53, time.Second) }, true},
		{"a burst that overflows", func() (engine.Rate, error) { return engine.NewGCRA(1, time.Hour, 1<<63) }, true},
		{"more than one a nanosecond", func() (engine.Rate, error) { return engine.NewGCRA(1<<40, time.Second, 10) }, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, err := test.make(); (err != nil) != test.refused {
				t.Fatalf("error %v, want one: %v", err, test.refused)
			}
		})
	}
}

// TestForgettingForgivesNothing: a counter that is forgotten when it may be
// stands where one that has counted nothing does.
func TestForgettingForgivesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cells := drawCells(t)
		states, readings := make([]engine.State, len(cells)), make([]engine.Reading, len(cells))
		now := start
		for range rapid.IntRange(1, 10).Draw(t, "requests") {
			now += rapid.Int64Range(0, 500_000).Draw(t, "pause")
			for i := range cells {
				cells[i].Cost = rapid.Uint64Range(0, 3).Draw(t, "cost")
			}
			engine.Decide(now, cells, states, readings)
			for i, c := range cells {
				ends := c.Rate.Expiry(states[i])
				if kept, fresh := c.Rate.At(states[i], ends), c.Rate.At(engine.State{}, ends); kept != fresh {
					t.Fatalf("%+v: %+v may be forgotten at %d, where it is %+v and a fresh one %+v", c.Rate, states[i], ends, kept, fresh)
				}
			}
		}
	})
}

func TestSecondsRoundUp(t *testing.T) {
	for d, want := range map[time.Duration]int64{0: 0, 1: 1, time.Second: 1, time.Second + 1: 2, 90 * time.Second: 90} {
		if got := engine.Seconds(d); got != want {
			t.Errorf("Seconds(%s) = %d, want %d", d, got, want)
		}
	}
}

// naive decides like Decide, by keeping every admitted hit in a list.
type naive struct {
	hits [][]int64 // admission times of each cell's hits
}

func (n *naive) fits(i int, c engine.Cell, now int64) bool {
	asked := max(c.Cost, 1)
	if c.Rate.Algorithm == engine.Fixed {
		window := c.Rate.Window.Microseconds()
		used := uint64(0)
		for _, at := range n.hits[i] {
			if at/window == now/window {
				used++
			}
		}
		return used+asked <= c.Rate.Limit
	}
	// A bucket in whole nanoseconds, replayed from its first hit.
	owed, last := time.Duration(0), int64(0)
	for _, at := range n.hits[i] {
		owed = max(0, owed-time.Duration(at-last)*time.Microsecond) + c.Rate.Interval
		last = at
	}
	owed = max(0, owed-time.Duration(now-last)*time.Microsecond)
	return asked <= uint64(c.Rate.Tolerance) && owed+time.Duration(asked)*c.Rate.Interval <= c.Rate.Tolerance
}

func (n *naive) decide(cells []engine.Cell, now int64) (bool, []bool) {
	admitted, fits := true, make([]bool, len(cells))
	for i, c := range cells {
		fits[i] = n.fits(i, c, now)
		admitted = admitted && (fits[i] || c.Shadow)
	}
	for i, c := range cells {
		for range c.Cost {
			if admitted && fits[i] {
				n.hits[i] = append(n.hits[i], now)
			}
		}
	}
	return admitted, fits
}

func drawCells(t *rapid.T) []engine.Cell {
	windows := rapid.SampledFrom([]time.Duration{100 * time.Millisecond, time.Second, 7 * time.Second, time.Minute})
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) engine.Cell {
		limit, window := rapid.Uint64Range(1, 12).Draw(t, "limit"), windows.Draw(t, "window")
		c := engine.Cell{Rate: fixed(t, limit, window), Shadow: rapid.IntRange(0, 3).Draw(t, "shadow") == 0}
		if rapid.Bool().Draw(t, "gcra") {
			c.Rate = gcra(t, limit, window, rapid.Uint64Range(1, 12).Draw(t, "burst"))
		}
		return c
	}), 1, 4).Draw(t, "cells")
}

// TestDecideAgreesWithNaive: any mix of cells, costs and pauses.
func TestDecideAgreesWithNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cells := drawCells(t)
		states, readings := make([]engine.State, len(cells)), make([]engine.Reading, len(cells))
		oracle := &naive{hits: make([][]int64, len(cells))}
		now := start
		for range rapid.IntRange(1, 60).Draw(t, "requests") {
			now += rapid.Int64Range(0, 2_000_000).Draw(t, "pause")
			for i := range cells {
				cells[i].Cost = rapid.Uint64Range(0, 3).Draw(t, "cost")
			}
			before := append([]engine.State(nil), states...)
			got := engine.Decide(now, cells, states, readings)
			want, fits := oracle.decide(cells, now)
			if got != want || got != engine.Admitted(cells, readings) {
				t.Fatalf("admitted %v, naive says %v, Admitted says %v", got, want, engine.Admitted(cells, readings))
			}
			for i := range cells {
				if readings[i].Allowed != fits[i] {
					t.Fatalf("cell %d: allowed %v, naive says %v", i, readings[i].Allowed, fits[i])
				}
				if !got && states[i] != cells[i].Rate.At(before[i], now) {
					t.Fatalf("cell %d moved by a refused request", i)
				}
			}
		}
	})
}

// TestRetryAfterIsTheEarliest: a refused request fits after RetryAfter and not
// a microsecond before, if it can fit at all.
func TestRetryAfterIsTheEarliest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawCells(t)[0].Rate
		var s engine.State
		now := start
		for range 50 {
			now += rapid.Int64Range(0, 300_000).Draw(t, "pause")
			cost := rapid.Uint64Range(1, 3).Draw(t, "cost")
			reading := one(&s, r, now, cost)
			if reading.Allowed || cost > r.Limit || r.Algorithm == engine.GCRA && cost > uint64(r.Tolerance/r.Interval) {
				continue
			}
			wait := (reading.RetryAfter + time.Microsecond - 1).Microseconds()
			early, late := s, s
			if one(&early, r, now+wait-1, cost).Allowed {
				t.Fatalf("fits before RetryAfter %s", reading.RetryAfter)
			}
			if !one(&late, r, now+wait, cost).Allowed {
				t.Fatalf("does not fit after RetryAfter %s", reading.RetryAfter)
			}
		}
	})
}
