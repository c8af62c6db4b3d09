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

func take(t testing.TB, s store.Store, cell engine.Cell) engine.Reading {
	t.Helper()
	readings, err := s.Take(context.Background(), time.Now(), []engine.Cell{cell})
	if err != nil {
		t.Fatal(err)
	}
	return readings[0]
}
