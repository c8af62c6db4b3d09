package store_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"tollgate/ratelimit/engine"
	"tollgate/ratelimit/store"
)

// fleet is limiters that share a store, and what they admitted of each counter.
type fleet struct {
	t        *rapid.T
	limiters []*store.Failover
	store    *shared
	cells    []engine.Cell
	admitted map[string]int64
	outages  bool // there were some
	stalls   bool
}

func (f *fleet) ask() {
	var cells []engine.Cell
	for _, c := range f.cells {
		if rapid.IntRange(0, 2).Draw(f.t, "use") > 0 {
			c.Cost = rapid.Uint64Range(1, 3).Draw(f.t, "cost")
			cells = append(cells, c)
		}
	}
	if len(cells) == 0 {
		return
	}
	limiter := f.limiters[rapid.IntRange(0, len(f.limiters)-1).Draw(f.t, "limiter")]
	readings, err := limiter.Take(context.Background(), time.Now(), cells)
	if err != nil {
		f.t.Fatal(err)
	}
	if !engine.Admitted(cells, readings) {
		return
	}
	for _, c := range cells {
		f.admitted[c.Key] += int64(c.Cost)
		if !f.outages && !f.stalls && f.admitted[c.Key] > int64(c.Rate.Limit) {
			f.t.Fatalf("%d of %d admitted of %s, and nothing went wrong", f.admitted[c.Key], c.Rate.Limit, c.Key)
		}
	}
}

func (f *fleet) step() {
	switch rapid.IntRange(0, 9).Draw(f.t, "what happens") {
	case 0:
		f.store.away.Store(true)
		f.outages = true
	case 1, 2:
		f.store.away.Store(false)
	case 3:
		f.store.late.Store(int64(timeout - patience))
		f.stalls = true
	case 4:
		time.Sleep(time.Duration(rapid.Int64Range(0, int64(2*time.Second)).Draw(f.t, "pause")))
	}
	f.ask()
}

// TestBooksBalance: whatever outages or late answers several limiters go through,
// in the end the shared store has counted exactly what they admitted, none of it
// twice and none of it not; and while all is well they admit together no more
// than the limit. With both, what would be given back may be lost on its way: then
// the store has counted no less.
func TestBooksBalance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(undated{t}, func(rt *rapid.T) {
			wants := map[string]wanted{
				"few": {limit: rapid.Uint64Range(1, 20).Draw(rt, "few"), window: 10 * 24 * time.Hour}, "many": {limit: 1000, window: 10 * 24 * time.Hour},
			}
			s := &shared{counted: newNaive(wants), limiters: rapid.IntRange(1, 3).Draw(rt, "limiters")}
			f := &fleet{t: rt, store: s, admitted: map[string]int64{}}
			for _, key := range []string{"few", "many"} {
				f.cells = append(f.cells, engine.Cell{Key: key, Rule: key, Rate: wants[key].rate(rt)})
			}
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan struct{})
			for range s.limiters {
				limiter := store.NewFailover(failoverConfig(s))
				f.limiters = append(f.limiters, limiter)
				go func() { _ = limiter.Run(ctx); ended <- struct{}{} }()
			}
			defer func() {
				cancel()
				for range f.limiters {
					<-ended
				}
				time.Sleep(timeout) // a trip under way ends by itself
			}()
			synctest.Wait() // each has shown that it lives, and knows of the others
			for range rapid.IntRange(1, 40).Draw(rt, "steps") {
				f.step()
			}
			s.away.Store(false)
			time.Sleep(5 * time.Second) // back, and all debts delivered
			synctest.Wait()
			for _, c := range f.cells {
				got := s.counted.look(c.Key, time.Now()).used
				if got < f.admitted[c.Key] || got > f.admitted[c.Key] && (!f.outages || !f.stalls) {
					rt.Fatalf("%s: %d admitted, %d in the books", c.Key, f.admitted[c.Key], got)
				}
			}
		})
	})
}

// TestDebtsOutliveAFailedTrip: what was counted without the store before a trip
// that fails, and what is counted while it lasts, are both booked by the next.
func TestDebtsOutliveAFailedTrip(t *testing.T) {
	day := 24 * time.Hour
	for name, w := range map[string]wanted{"fixed": {limit: 8, window: 8 * day}, "gcra": {limit: 8, window: 8 * day, burst: 8}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &shared{counted: newNaive(map[string]wanted{"k": w})}
				f := failover(t, s, nil)
				cell := engine.Cell{Key: "k", Rate: w.rate(t), Cost: 1}
				take(t, f, cell)
				s.away.Store(true)
				for range 3 {
					take(t, f, cell)
				}
				s.refuses.Store(true)
				s.late.Store(int64(timeout / 2))
				s.away.Store(false)
				for f.Degraded() { // until a sign of life, which sends debts on their way
					time.Sleep(time.Millisecond)
				}
				time.Sleep(2 * patience)
				for range 2 {
					take(t, f, cell)
				}
				time.Sleep(timeout)
				s.refuses.Store(false)
				time.Sleep(5 * time.Second)
				cell.Cost = 0
				if r := take(t, f, cell); r.Remaining != 2 {
					t.Errorf("%d of 8 left after 6", r.Remaining)
				}
				if got, _ := s.counted.take(time.Now(), []engine.Cell{cell}); got[0].Remaining != 2 {
					t.Errorf("the books leave %d of 8 after 6", got[0].Remaining)
				}
			})
		})
	}
}

// TestDebtOfTheNextWindow: a late answer about a window that has ended meanwhile
// does not make the limiter forget what the next one has given.
func TestDebtOfTheNextWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shared{counted: newNaive(map[string]wanted{"k": {limit: 1, window: 10 * time.Second}})}
		f := failover(t, s, nil)
		cell := engine.Cell{Key: "k", Rate: fixed(t, 1, 10*time.Second)}
		begins := time.Now().Truncate(10 * time.Second).Add(10 * time.Second)
		time.Sleep(time.Until(begins.Add(-2 * patience)))
		s.late.Store(int64(timeout - patience))
		take(t, f, cell) // asks for nothing, and is answered in the next window
		time.Sleep(time.Until(begins.Add(patience)))
		cell.Cost = 1
		if !take(t, f, cell).Allowed {
			t.Fatal("a fresh window refuses")
		}
		s.away.Store(true)
		time.Sleep(timeout)
		if take(t, f, cell).Allowed {
			t.Error("the window gives twice")
		}
	})
}
