package store_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"tollgate/ratelimit/engine"
	"tollgate/ratelimit/store"
)

// TestMemoryForgets: dead counters go by themselves, live ones stay.
func TestMemoryForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory(0)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		for i := range 1000 {
			take(t, m, engine.Cell{Key: fmt.Sprint("short", i), Rate: fixed(t, 1, time.Second), Cost: 1})
			take(t, m, engine.Cell{Key: fmt.Sprint("long", i), Rate: fixed(t, 1, 24*time.Hour), Cost: 1})
		}
		if m.Len() != 2000 {
			t.Fatalf("%d counters, want 2000", m.Len())
		}
		time.Sleep(12 * time.Second)
		if m.Len() != 1000 {
			t.Errorf("%d counters after a sweep, want 1000", m.Len())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestMemoryIsBounded: a flood of new keys costs neither memory without end nor
// the counters that last longest.
func TestMemoryIsBounded(t *testing.T) {
	const bound = 6400
	m := store.NewMemory(bound)
	month := engine.Cell{Key: "month", Rate: fixed(t, 1, 30*24*time.Hour), Cost: 1}
	take(t, m, month)
	for i := range 10 * bound {
		take(t, m, engine.Cell{Key: fmt.Sprint("flood", i), Rate: fixed(t, 1, time.Hour), Cost: 1})
	}
	if n := m.Len(); n > bound {
		t.Errorf("%d counters, want at most %d", n, bound)
	}
	if r := take(t, m, month); r.Allowed {
		t.Error("the flood made the month's counter forget")
	}
}

// TestSweepSparesTheLiving: a sweep takes no counter before its window ends.
func TestSweepSparesTheLiving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory(0)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		// The bubble begins at midnight: at the start of a window.
		cell := engine.Cell{Key: "live", Rate: fixed(t, 1, 15*time.Second), Cost: 1}
		take(t, m, cell)
		time.Sleep(14 * time.Second)
		if take(t, m, cell).Allowed {
			t.Error("the sweep forgot a counter a second before its window's end")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestFloodForgivesNobody: a flood of new keys, whatever their windows and
// limits, makes no spent counter forget, and no rule takes another's room.
func TestFloodForgivesNobody(t *testing.T) {
	const bound = 6400
	for name, flood := range map[string]engine.Rate{
		"long windows": fixed(t, 100, 30*24*time.Hour), "spent at once": fixed(t, 1, 30*24*time.Hour), "gcra": gcra(t, 1, time.Hour, 1),
	} {
		t.Run(name, func(t *testing.T) {
			m := store.NewMemory(bound)
			now := time.Now().Truncate(time.Hour)
			ask := func(cell engine.Cell) bool {
				readings, err := m.Take(context.Background(), now, []engine.Cell{cell})
				if err != nil {
					t.Fatal(err)
				}
				return readings[0].Allowed
			}
			minute := engine.Cell{Key: "minute", Rule: "minute", Rate: fixed(t, 1, time.Minute), Cost: 1}
			month := engine.Cell{Key: "month", Rule: "flood", Rate: flood, Cost: 1}
			for ask(minute) {
			}
			for ask(month) {
			}
			admitted := 0
			for i := range 10 * bound {
				if ask(engine.Cell{Key: fmt.Sprint("flood", i), Rule: "flood", Rate: flood, Cost: 1}) {
					admitted++
				}
			}
			if ask(minute) || ask(month) {
				t.Error("the flood made a spent counter forget")
			}
			if n := m.Len(); n > bound+64 {
				t.Errorf("%d counters, want at most %d and one for the rest of each shard", n, bound)
			}
			if flood.Limit == 1 && admitted > bound/2+64 {
				t.Errorf("%d keys of one rule admitted: what has no room shares a counter", admitted)
			}
			if !ask(engine.Cell{Key: "other", Rule: "other", Rate: flood, Cost: 1}) {
				t.Error("another rule found no room")
			}
		})
	}
}

func take(t testing.TB, s store.Store, cell engine.Cell) engine.Reading {
	t.Helper()
	readings, err := s.Take(context.Background(), time.Now(), []engine.Cell{cell})
	if err != nil {
		t.Fatal(err)
	}
	return readings[0]
}
