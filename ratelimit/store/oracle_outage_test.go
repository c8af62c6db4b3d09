package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"tollgate/ratelimit/engine"
	"tollgate/ratelimit/store"
)

// shared is the oracle as the store that limiters share. It can be away, and its
// answers can be late.
type shared struct {
	counted *naive
	away    atomic.Bool
	late    atomic.Int64 // nanoseconds, of the next answer
	lost    atomic.Bool  // the next answer never comes
	refuses atomic.Bool  // requests and debts, with an answer

	mu       sync.Mutex
	limiters int // that live; 0 is 1
}

// Settle books debts, then decides, then maybe answers.
func (s *shared) Settle(_ context.Context, trip store.Trip) (store.Settled, error) {
	if s.away.Load() {
		return store.Settled{}, errDown
	}
	if s.refuses.Load() {
		time.Sleep(time.Duration(s.late.Swap(0)))
		return store.Settled{}, errDown
	}
	s.mu.Lock()
	at, lost := time.Now(), s.lost.Swap(false)
	settled := store.Settled{Now: at.UnixMicro(), Counters: map[string]store.Remembered{}}
	keep := func(key, rule string, rate engine.Rate) {
		settled.Counters[key] = store.Remembered{Rate: rate, Rule: rule, State: s.state(key, at)}
	}
	for _, d := range trip.Debts {
		s.counted.pay(at, d)
		keep(d.Key, "", d.Rate)
	}
	for _, cells := range trip.Requests {
		readings, _ := s.counted.take(at, cells)
		settled.Readings = append(settled.Readings, readings)
		for _, c := range cells {
			keep(c.Key, c.Rule, c.Rate)
		}
	}
	s.mu.Unlock()
	time.Sleep(time.Duration(s.late.Swap(0)))
	if lost {
		return store.Settled{}, errDown
	}
	return settled, nil
}

// state says in the engine's words what a counter holds.
func (s *shared) state(key string, at time.Time) engine.State {
	w, b := s.counted.wants[key], s.counted.look(key, at)
	if w.burst == 0 {
		return engine.State{Mark: b.begins.UnixMicro(), Used: uint64(b.used)}
	}
	owed := new(big.Rat).SetUint64(w.burst)
	owed.Mul(owed.Sub(owed, b.tokens), big.NewRat(w.price(), 1))
	return engine.State{Mark: at.UnixNano() + owed.Num().Int64()}
}

// Beat is that of a limiter.
func (s *shared) Beat(context.Context) (int, error) {
	if s.away.Load() {
		return 0, errDown
	}
	return max(s.limiters, 1), nil
}

// drawEven is limits whose requests cost whole microseconds, in which debts are
// kept.
func drawEven(t *rapid.T) map[string]wanted {
	wants := drawWants(t)
	for key, w := range wants {
		w.limit = rapid.SampledFrom([]uint64{1, 2, 4, 5, 8, 10}).Draw(t, "even limit")
		wants[key] = w
	}
	return wants
}

// undated is a test whose deadline a bubble does not know.
type undated struct{ rapid.TB }

// outages is one limiter, its shared store, and what is true whatever happens to
// the two.
type outages struct {
	t       *rapid.T
	limiter *store.Failover
	store   *shared
	truth   *naive
	down    bool
}

// TestOracleOfOutages: one limiter that loses its store, gets late answers and
// finds the store again admits request by request what it would have admitted if
// nothing had happened: limits that count locally, that is; what fails open or
// closed is not counted meanwhile.
func TestOracleOfOutages(t *testing.T) {
	modes := map[string][]engine.OnError{"local": {engine.Local}, "mixed": {engine.Local, engine.Open, engine.Closed}}
	for name, words := range modes {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rapid.Check(undated{t}, func(rt *rapid.T) {
					wants := drawEven(rt)
					s := &shared{counted: newNaive(wants)}
					o := &outages{t: rt, store: s, truth: newNaive(wants)}
					ctx, cancel := context.WithCancel(context.Background())
					o.limiter = store.NewFailover(failoverConfig(s))
					ended := make(chan struct{})
					go func() { _ = o.limiter.Run(ctx); close(ended) }()
					defer func() {
						cancel()
						<-ended
						time.Sleep(timeout) // a trip under way ends by itself
					}()
					onError := map[string]engine.OnError{}
					for _, key := range []string{"a", "b", "c", "d", "e"} {
						onError[key] = rapid.SampledFrom(words).Draw(rt, "on error")
					}
					for range rapid.IntRange(1, 40).Draw(rt, "steps") {
						o.step(wants, onError, len(words) == 1)
					}
				})
			})
		})
	}
}

func (o *outages) step(wants map[string]wanted, onError map[string]engine.OnError, stalls bool) {
	switch rapid.IntRange(0, 11).Draw(o.t, "what happens") {
	case 0:
		o.store.away.Store(true)
		o.down = true
	case 1, 2:
		o.store.away.Store(false)
		o.down = false
		time.Sleep(1100 * time.Millisecond) // a sign of life
		synctest.Wait()
		if o.limiter.Degraded() {
			o.t.Fatal("the store is back and not used")
		}
	case 3:
		if stalls && !o.down {
			o.store.late.Store(int64(timeout - patience))
		}
	case 4, 5:
		// Not for long: there is a sign of life every second.
		time.Sleep(min(max(drawStep(o.t), 0), 10*time.Minute))
		synctest.Wait()
	}
	cells := drawCells(o.t, wants, "", "a")
	for i := range cells {
		cells[i].OnError = onError[cells[i].Key]
	}
	if len(cells) > 0 {
		o.ask(cells)
	}
}

func (o *outages) ask(cells []engine.Cell) {
	at := time.Now()
	got, err := o.limiter.Take(context.Background(), at, cells)
	admitted := err == nil && engine.Admitted(cells, got)
	if !o.down {
		want, right := o.truth.take(at, cells)
		if err != nil || admitted != right {
			o.t.Fatalf("at %s, %+v: admitted %v, %v; naive says %v", at.UTC(), cells, admitted, err, right)
		}
		for i := range cells {
			if got[i].Known && got[i] != want[i] {
				o.t.Fatalf("at %s, cell %d of %+v:\nnaive %+v\ngot   %+v", at.UTC(), i, cells, want[i], got[i])
			}
		}
		return
	}
	var counted []engine.Cell
	closed, spent, refuses := false, false, false
	for _, c := range cells {
		full := !c.Shadow && !o.truth.fits(c.Key, o.truth.look(c.Key, at), c.Cost)
		spent = spent || full // known to be so, it is refused whatever it says
		closed = closed || !c.Shadow && c.OnError == engine.Closed
		if c.OnError == engine.Local {
			counted = append(counted, c)
			refuses = refuses || full
		}
	}
	switch {
	case admitted && (closed || refuses):
		o.t.Fatalf("without the store, at %s, %+v: admitted; closed %v, naive refuses %v", at.UTC(), cells, closed, refuses)
	case !admitted && !closed && !spent:
		o.t.Fatalf("without the store, at %s, %+v: %v, %v; naive admits it", at.UTC(), cells, got, err)
	case admitted:
		o.truth.take(at, counted)
	}
}

// TestClockStepsBackUnderARefusal: this machine's clock is set back while a
// refusal is remembered: the shared store, whose clock is well, is asked at once
// and not when ours has come so far again.
func TestClockStepsBackUnderARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shared{counted: newNaive(map[string]wanted{"k": {limit: 1, window: 24 * time.Hour}})}
		f := failover(t, s, nil)
		cell := engine.Cell{Key: "k", Rate: fixed(t, 1, 24*time.Hour), Cost: 1}
		take(t, f, cell)
		if take(t, f, cell).Allowed {
			t.Fatal("two of one")
		}
		delete(s.counted.books, "k")
		readings, err := f.Take(context.Background(), time.Now().Add(-time.Hour), []engine.Cell{cell})
		if err != nil || !readings[0].Allowed {
			t.Errorf("%+v, %v; want the store's word", readings, err)
		}
	})
}

// TestSlowTripTellsNoTime: the answer of a slow trip is no news of the shared
// store's clock: what is decided without it goes by the one that was known.
func TestSlowTripTellsNoTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shared{counted: newNaive(map[string]wanted{"k": {limit: 9, window: time.Minute}})}
		f := failover(t, s, nil)
		cell := engine.Cell{Key: "k", Rate: fixed(t, 9, time.Minute), Cost: 1}
		take(t, f, cell)
		s.late.Store(int64(timeout / 2))
		take(t, f, cell)
		time.Sleep(timeout)
		s.away.Store(true)
		now := time.Now()
		want := now.Truncate(time.Minute).Add(time.Minute).Sub(now)
		if r := take(t, f, cell); r.Remaining != 6 || r.Reset != want {
			t.Errorf("%+v, want 6 left for %s", r, want)
		}
	})
}

// TestDebtIsOfItsTime: what a bucket gave while a trip was under way is
// remembered as of when it gave, not of when the trip looked.
func TestDebtIsOfItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shared{counted: newNaive(map[string]wanted{"k": {limit: 1, window: 10 * time.Second, burst: 1}})}
		f := failover(t, s, nil)
		cell := engine.Cell{Key: "k", Rate: gcra(t, 1, 10*time.Second, 1)}
		s.late.Store(int64(timeout - patience))
		take(t, f, cell) // asks for nothing, and is answered late
		time.Sleep(100 * time.Millisecond)
		cell.Cost = 1
		given := time.Now()
		if !take(t, f, cell).Allowed {
			t.Fatal("a full bucket refuses")
		}
		s.away.Store(true)
		time.Sleep(time.Until(given.Add(10*time.Second - time.Millisecond)))
		if take(t, f, cell).Allowed {
			t.Error("the bucket gives again too early")
		}
		time.Sleep(2 * time.Millisecond)
		if !take(t, f, cell).Allowed {
			t.Error("the bucket does not give again")
		}
	})
}

// TestGiftIsGivenOnce: what is given back in a trip whose answer is lost may have
// been taken back, so it is not given again: a limit errs on its own side.
func TestGiftIsGivenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shared{counted: newNaive(map[string]wanted{"k": {limit: 10, window: 24 * time.Hour}})}
		f := failover(t, s, nil)
		cell := engine.Cell{Key: "k", Rate: fixed(t, 10, 24*time.Hour), Cost: 5, OnError: engine.Closed}
		take(t, f, cell)
		s.late.Store(int64(timeout - patience))
		cell.Cost = 2
		if _, err := f.Take(context.Background(), time.Now(), []engine.Cell{cell}); !errors.Is(err, store.ErrRefused) {
			t.Fatalf("%v, want a refusal without the store", err)
		}
		s.lost.Store(true) // of the trip that gives back
		time.Sleep(timeout)
		cell.Cost = 0
		if r := take(t, f, cell); r.Remaining != 5 {
			t.Errorf("%d of 10 left after 5", r.Remaining)
		}
	})
}

// TestBesideATrip: a caller in a hurry is decided in memory while another one's
// request for the same counter is on its way: what that one may yet be given is
// not given twice.
func TestBesideATrip(t *testing.T) {
	for limit, want := range map[uint64]int64{1: 1, 2: 2} {
		synctest.Test(t, func(t *testing.T) {
			s := &shared{counted: newNaive(map[string]wanted{"k": {limit: limit, window: 24 * time.Hour}})}
			f := failover(t, s, nil)
			cell := engine.Cell{Key: "k", Rate: fixed(t, limit, 24*time.Hour), Cost: 1}
			s.late.Store(int64(patience * 3 / 4))
			var admitted atomic.Int64
			ask := func(ctx context.Context) {
				readings, err := f.Take(ctx, time.Now(), []engine.Cell{cell})
				if err != nil {
					t.Error(err)
				} else if readings[0].Allowed {
					admitted.Add(1)
				}
			}
			var wg sync.WaitGroup
			wg.Go(func() { ask(context.Background()) })
			synctest.Wait()
			hurry, cancel := context.WithTimeout(context.Background(), patience) // of which it waits three eighths
			defer cancel()
			wg.Go(func() { ask(hurry) })
			wg.Wait()
			if admitted.Load() != want {
				t.Errorf("%d admitted of %d", admitted.Load(), limit)
			}
		})
	}
}

// TestHeardIsRemembered: whoever hears of the last hit that a limit gives finds
// its refusal remembered, at once and without a trip.
func TestHeardIsRemembered(t *testing.T) {
	awayFromMidnight(t)
	const keys = 10_000
	s := &shared{counted: newNaive(map[string]wanted{})}
	f := failover(t, s, nil)
	rate := fixed(t, 1, 24*time.Hour)
	for i := range keys {
		cell := engine.Cell{Key: fmt.Sprint("k", i), Rate: rate, Cost: 1}
		s.counted.wants[cell.Key] = wanted{limit: 1, window: 24 * time.Hour}
		take(t, f, cell)
		take(t, f, cell)
	}
	// A machine that stands still for a second between the two asks again.
	if got := f.Remembered(); got < keys-3 {
		t.Errorf("%d refusals of %d came from memory", got, keys)
	}
}
