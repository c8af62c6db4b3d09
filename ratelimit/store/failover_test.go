package store_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tollgate/ratelimit/engine"
	"tollgate/ratelimit/store"
	"tollgate/ratelimit/store/redistest"
)

// primary is a shared store that counts in memory, and whose trips and beats do
// first what a test chooses.
type primary struct {
	do      func(ctx context.Context) error
	counted *store.Memory
	trips   atomic.Int64
}

func newPrimary(do func(ctx context.Context) error) *primary {
	return &primary{do: do, counted: store.NewMemory(0)}
}

// Settle decides as a store that knows no debts.
func (p *primary) Settle(ctx context.Context, trip store.Trip) (store.Settled, error) {
	p.trips.Add(1)
	if err := p.do(ctx); err != nil {
		return store.Settled{}, err
	}
	s := store.Settled{Now: time.Now().UnixMicro(), Counters: map[string]store.Remembered{}}
	for _, cells := range trip.Requests {
		readings, err := p.counted.Take(ctx, time.Now(), cells)
		if err != nil {
			return s, err
		}
		s.Readings = append(s.Readings, readings)
		for i, r := range readings { // of fixed windows
			rate := cells[i].Rate
			s.Counters[cells[i].Key] = store.Remembered{Rate: rate, State: engine.State{
				Mark: s.Now + (r.Reset - rate.Window).Microseconds(), Used: rate.Limit - r.Remaining,
			}}
		}
	}
	return s, nil
}

// Beat is one limiter's.
func (p *primary) Beat(ctx context.Context) (int, error) { return 1, p.do(ctx) }

const (
	patience = 20 * time.Millisecond
	timeout  = 200 * time.Millisecond
)

func failover(t *testing.T, p store.Primary, told func(bool)) *store.Failover {
	t.Helper()
	return failoverWith(t, p, store.FailoverConfig{Patience: patience, Timeout: timeout, Degraded: told})
}

// failoverConfig is that of a limiter in a hurry.
func failoverConfig(p store.Primary) store.FailoverConfig {
	return store.FailoverConfig{Primary: p, Local: store.NewMemory(0), Log: slog.New(slog.DiscardHandler), Patience: patience, Timeout: timeout}
}

func failoverWith(t *testing.T, p store.Primary, cfg store.FailoverConfig) *store.Failover {
	t.Helper()
	cfg.Primary, cfg.Local, cfg.Log = p, store.NewMemory(0), slog.New(slog.DiscardHandler)
	f := store.NewFailover(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return f
}

var errDown = errors.New("connection refused")

// TestOnError: what each limit does while the store is down, alone and mixed.
func TestOnError(t *testing.T) {
	local := engine.Cell{Key: "local", Rate: fixed(t, 1, 24*time.Hour), Cost: 1}
	open := engine.Cell{Key: "open", Rate: fixed(t, 1, 24*time.Hour), Cost: 1, OnError: engine.Open}
	closed := engine.Cell{Key: "closed", Rate: fixed(t, 1, 24*time.Hour), Cost: 1, OnError: engine.Closed}
	shadow := closed
	shadow.Shadow = true
	tests := []struct {
		name  string
		cells []engine.Cell
		want  []string // of each of three requests
	}{
		{"local counts in memory", []engine.Cell{local}, []string{"admitted", "refused", "refused"}},
		{"open admits", []engine.Cell{open}, []string{"admitted", "admitted", "admitted"}},
		{"closed refuses", []engine.Cell{closed}, []string{"error", "error", "error"}},
		{"closed wins", []engine.Cell{local, open, closed}, []string{"error", "error", "error"}},
		{"local wins over open", []engine.Cell{open, local}, []string{"admitted", "refused", "refused"}},
		{"a shadow never refuses", []engine.Cell{shadow}, []string{"admitted", "admitted", "admitted"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := failover(t, newPrimary(func(context.Context) error { return errDown }), nil)
			var got []string
			for range 3 {
				readings, err := f.Take(context.Background(), time.Now(), test.cells)
				switch {
				case errors.Is(err, store.ErrRefused):
					got = append(got, "error")
				case err != nil:
					t.Fatal(err)
				case engine.Admitted(test.cells, readings):
					got = append(got, "admitted")
				default:
					got = append(got, "refused")
				}
			}
			if !slices.Equal(got, test.want) {
				t.Fatalf("got %v, want %v", got, test.want)
			}
		})
	}
}

func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestStall: one slow trip costs those that wait their patience, those that come
// while it lasts nothing, and opens no circuit.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := 150 * time.Millisecond
		var stall atomic.Bool
		var told atomic.Int64
		p := newPrimary(func(context.Context) error {
			if stall.Swap(false) {
				time.Sleep(slow)
			}
			return nil
		})
		f := failover(t, p, func(bool) { told.Add(1) })
		synctest.Wait()
		cell := engine.Cell{Key: "k", Rate: fixed(t, 10, 24*time.Hour), Cost: 1}
		take(t, f, cell)
		stall.Store(true)
		begin := time.Now()
		var admitted atomic.Int64
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				if take(t, f, cell).Allowed {
					admitted.Add(1)
				}
			})
		}
		wg.Wait()
		if took := time.Since(begin); took != patience {
			t.Errorf("those that waited were answered after %s, want %s", took, patience)
		}
		begin = time.Now()
		for range 30 {
			if take(t, f, cell).Allowed {
				admitted.Add(1)
			}
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("those that came later waited %s", took)
		}
		if admitted.Load() != 9 {
			t.Errorf("%d admitted while the store was away, want the 9 that were left", admitted.Load())
		}
		time.Sleep(slow)
		if f.Degraded() || told.Load() != 0 {
			t.Error("one slow trip opened the circuit")
		}
	})
}

// TestCircuit: failures in a row open it, requests are decided at once from
// then on, and it closes within a second of the store's return, without any.
func TestCircuit(t *testing.T) {
	for name, fail := range map[string]func(context.Context) error{
		"refuses": func(context.Context) error { return errDown },
		"hangs":   hang,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var down atomic.Bool
				var mu sync.Mutex
				var told []bool
				p := newPrimary(func(ctx context.Context) error {
					if down.Load() {
						return fail(ctx)
					}
					return nil
				})
				f := failover(t, p, func(down bool) {
					mu.Lock()
					defer mu.Unlock()
					told = append(told, down)
				})
				cell := engine.Cell{Key: "k", Rate: fixed(t, 1e9, 24*time.Hour), Cost: 1}
				take(t, f, cell)
				down.Store(true)
				trips, waited := p.trips.Load(), time.Duration(0)
				for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(time.Millisecond) {
					before := time.Now()
					take(t, f, cell)
					waited += time.Since(before)
				}
				if n := p.trips.Load() - trips; !f.Degraded() || n > 3 || waited > patience {
					t.Errorf("10 s of requests made %d trips, waited %s in all; degraded %v", n, waited, f.Degraded())
				}
				down.Store(false)
				time.Sleep(1200 * time.Millisecond)
				if f.Degraded() {
					t.Error("not back within 1.2 s")
				}
				mu.Lock()
				defer mu.Unlock()
				if !slices.Equal(told, []bool{true, false}) {
					t.Errorf("told %v", told)
				}
			})
		})
	}
}

// TestIdleLimiter: a store that dies without a request is noticed in seconds.
func TestIdleLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		f := failover(t, newPrimary(func(context.Context) error {
			if down.Load() {
				return errDown
			}
			return nil
		}), nil)
		time.Sleep(10 * time.Second)
		if f.Degraded() {
			t.Fatal("degraded while all is well")
		}
		down.Store(true)
		time.Sleep(4 * time.Second)
		if !f.Degraded() {
			t.Error("nobody noticed in 4 s")
		}
	})
}

// TestReadsAreNoProof: a store that answers requests but cannot be written to
// stays down, however many requests it answers.
func TestReadsAreNoProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var flips atomic.Int64
		var writable atomic.Bool
		p := &readOnly{primary: newPrimary(func(context.Context) error { return nil }), writable: &writable}
		f := failover(t, p, func(bool) { flips.Add(1) })
		cell := engine.Cell{Key: "k", Rate: fixed(t, 1e9, 24*time.Hour), Cost: 1}
		for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
			take(t, f, cell)
		}
		if flips.Load() != 1 || !f.Degraded() {
			t.Errorf("%d flips, degraded %v; want it to go down once and stay", flips.Load(), f.Degraded())
		}
	})
}

type readOnly struct {
	*primary
	writable *atomic.Bool
}

func (r *readOnly) Beat(context.Context) (int, error) {
	if r.writable.Load() {
		return 1, nil
	}
	return 0, errDown
}

// TestProbingGoesOn: a sign of life that was cut off does not end the probing.
func TestProbingGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var beats atomic.Int64
		var up atomic.Bool
		f := failover(t, newPrimary(func(ctx context.Context) error {
			switch beats.Add(1); {
			case up.Load():
				return nil
			case beats.Load()%2 == 0:
				return hang(ctx)
			}
			return errDown
		}), nil)
		time.Sleep(30 * time.Second)
		if n := beats.Load(); n < 20 {
			t.Errorf("%d signs of life in 30 s", n)
		}
		up.Store(true)
		time.Sleep(1300 * time.Millisecond)
		if f.Degraded() {
			t.Error("not back")
		}
	})
}

// TestCallers: a caller is answered with time to spare; one that goes away, or
// leaves no time, is no evidence against the store.
func TestCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stall atomic.Bool
		f := failover(t, newPrimary(func(ctx context.Context) error {
			if stall.Load() {
				return hang(ctx)
			}
			return nil
		}), nil)
		synctest.Wait()
		stall.Store(true)
		cells := []engine.Cell{{Key: "k", Rate: fixed(t, 1e9, time.Hour), Cost: 1}}
		begin := time.Now()
		short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		if _, err := f.Take(short, begin, cells); err != nil || time.Since(begin) > 8*time.Millisecond {
			t.Errorf("answer after %s, %v: the caller has 20 ms", time.Since(begin), err)
		}
		gone, leave := context.WithCancel(context.Background())
		time.AfterFunc(time.Millisecond, leave)
		if _, err := f.Take(gone, time.Now(), cells); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want the caller's", err)
		}
		if f.Degraded() {
			t.Error("the store was blamed")
		}
		time.Sleep(timeout) // the trip ends by itself
	})
}

// TestWhoLeftIsNotCounted: a request whose caller has given up before its trip
// is neither sent nor counted.
func TestWhoLeftIsNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(func(context.Context) error {
			time.Sleep(15 * time.Millisecond)
			return nil
		})
		f := failover(t, p, nil)
		cell := engine.Cell{Key: "k", Rate: fixed(t, 100, 24*time.Hour), Cost: 1, OnError: engine.Closed}
		var wg sync.WaitGroup
		wg.Go(func() { take(t, f, cell) })
		synctest.Wait()
		for range 50 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
				defer cancel()
				if _, err := f.Take(ctx, time.Now(), []engine.Cell{cell}); err == nil {
					t.Error("answered")
				}
			})
		}
		wg.Wait()
		cell.Cost = 0
		if r := take(t, f, cell); r.Remaining != 99 {
			t.Errorf("%d of 100 left, want the one that waited counted", r.Remaining)
		}
	})
}

// TestTripsAreShared: all that wait while a trip is under way make one.
func TestTripsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(func(context.Context) error {
			time.Sleep(time.Millisecond)
			return nil
		})
		f := failover(t, p, nil)
		var wg sync.WaitGroup
		for i := range 256 {
			cell := engine.Cell{Key: "k", Rate: fixed(t, 1e9, 24*time.Hour), Cost: uint64(1 + i%2)}
			wg.Go(func() { take(t, f, cell) })
		}
		wg.Wait()
		if n := p.trips.Load(); n > 3 {
			t.Errorf("%d trips for 256 requests at once", n)
		}
	})
}

// TestTripsAreFew: an admission costs one trip when it is alone, and that trip
// one script in Redis.
func TestTripsAreFew(t *testing.T) {
	server := redistest.Start(t)
	f := failover(t, newRedis(t, server.URL), nil)
	cell := engine.Cell{Key: "k", Rate: fixed(t, 1e9, 24*time.Hour), Cost: 1}
	take(t, f, cell)
	before := f.Trips()
	const requests = 100
	for range requests {
		take(t, f, cell)
	}
	if n := f.Trips() - before; n > requests {
		t.Errorf("%d trips for %d requests one after another", n, requests)
	}
	if n := testing.AllocsPerRun(100, func() { take(t, f, cell) }); n > 80 {
		t.Errorf("%v allocations for a request with a trip of its own", n)
	}
	for begin := time.Now(); !f.Degraded() && time.Since(begin) < time.Millisecond; {
		cell.Rate = fixed(t, 1, 24*time.Hour)
		take(t, f, cell)
	}
	if n := testing.AllocsPerRun(100, func() { take(t, f, cell) }); n > 6 {
		t.Errorf("%v allocations for a refusal from memory", n)
	}
}

// TestRefusalsAreRemembered: a spent counter costs a trip a second, not one a
// request, until its window ends.
func TestRefusalsAreRemembered(t *testing.T) {
	server := redistest.Start(t)
	f := failover(t, newRedis(t, server.URL), nil)
	// Two limiters: what the other one spent is learnt at the first refusal.
	other := newRedis(t, server.URL)
	window := 24 * time.Hour
	cell := engine.Cell{Key: "k", Rate: fixed(t, 5, window), Cost: 1}
	for range 5 {
		take(t, other, cell)
	}
	before := f.Trips()
	for range 1000 {
		if take(t, f, cell).Allowed {
			t.Fatal("admitted")
		}
	}
	if n := f.Trips() - before; n > 5 {
		t.Errorf("%d trips for 1,000 refusals", n)
	}
	server.Client.Del(context.Background(), store.KeyPrefix+"k")
	for begin := time.Now(); !take(t, f, cell).Allowed; time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > 3*time.Second {
			t.Fatal("a counter that was deleted still refuses")
		}
	}
	short := engine.Cell{Key: "short", Rate: fixed(t, 1, 300*time.Millisecond), Cost: 1}
	admitted, begin := 0, time.Now()
	for time.Since(begin) < 1500*time.Millisecond {
		if take(t, f, short).Allowed {
			admitted++
		}
		time.Sleep(time.Millisecond)
	}
	if admitted < 4 || admitted > 6 {
		t.Errorf("%d admitted in five windows of one", admitted)
	}
}
