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

// primary is a store whose answers a test chooses.
type primary func(ctx context.Context) error

func (p primary) Take(ctx context.Context, _ time.Time, cells []engine.Cell) ([]engine.Reading, error) {
	if err := p(ctx); err != nil {
		return nil, err
	}
	readings := make([]engine.Reading, len(cells))
	for i := range readings {
		readings[i] = engine.Reading{Known: true, Allowed: true, Remaining: 1000}
	}
	return readings, nil
}

const timeout = 20 * time.Millisecond

func failover(p store.Store, told func(bool)) *store.Failover {
	return store.NewFailover(store.FailoverConfig{
		Primary: p, Local: store.NewMemory(0), Timeout: timeout, Log: slog.New(slog.DiscardHandler), Degraded: told,
	})
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
			f := failover(primary(func(context.Context) error { return errDown }), nil)
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

// TestCircuit: a store that hangs costs a request its deadline now and then,
// and is used again within a second of its return.
func TestCircuit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		var up atomic.Bool
		var told []bool
		f := failover(primary(func(ctx context.Context) error {
			calls.Add(1)
			if up.Load() {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}), func(down bool) { told = append(told, down) })
		cell := engine.Cell{Key: "k", Rate: fixed(t, 1e9, time.Hour), Cost: 1}
		begin, slow := time.Now(), 0
		for time.Since(begin) < 10*time.Second {
			before := time.Now()
			if _, err := f.Take(context.Background(), before, []engine.Cell{cell}); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(before); took > timeout {
				t.Fatalf("a request took %s", took)
			} else if took > 0 {
				slow++
			}
			time.Sleep(time.Millisecond)
		}
		if slow > 16 || int64(slow) != calls.Load() || !f.Degraded() {
			t.Errorf("%d of 10 s of requests waited, %d calls, degraded %v", slow, calls.Load(), f.Degraded())
		}
		up.Store(true)
		time.Sleep(1100 * time.Millisecond)
		readings, err := f.Take(context.Background(), time.Now(), []engine.Cell{cell})
		if err != nil || readings[0].Remaining != 1000 || f.Degraded() {
			t.Errorf("not back: %+v, %v", readings, err)
		}
		if !slices.Equal(told, []bool{true, false}) {
			t.Errorf("told %v", told)
		}
	})
}

// TestOneProbe: of many requests that come when the wait is over, one asks.
func TestOneProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		f := failover(primary(func(ctx context.Context) error {
			calls.Add(1)
			<-ctx.Done()
			return ctx.Err()
		}), nil)
		cells := []engine.Cell{{Key: "k", Rate: fixed(t, 1e9, time.Hour), Cost: 1}}
		_, _ = f.Take(context.Background(), time.Now(), cells)
		time.Sleep(200 * time.Millisecond)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { _, _ = f.Take(context.Background(), time.Now(), cells) })
		}
		wg.Wait()
		if calls.Load() != 2 {
			t.Errorf("%d calls, want the first and one probe", calls.Load())
		}
	})
}

// TestHurriedCaller: Envoy is answered in time; a caller that goes away, or
// leaves no time, is no evidence against the store.
func TestHurriedCaller(t *testing.T) {
	hangs := primary(func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	})
	synctest.Test(t, func(t *testing.T) {
		f := failover(hangs, nil)
		cells := []engine.Cell{{Key: "k", Rate: fixed(t, 1e9, time.Hour), Cost: 1}}
		envoy, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		begin := time.Now()
		if _, err := f.Take(envoy, begin, cells); err != nil || time.Since(begin) > 20*time.Millisecond {
			t.Errorf("answer for Envoy after %s, %v: it gives a try up after 25 ms", time.Since(begin), err)
		}
		if !f.Degraded() {
			t.Error("a store that hangs for Envoy's whole try was not blamed")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		f := failover(hangs, nil)
		cells := []engine.Cell{{Key: "k", Rate: fixed(t, 1e9, time.Hour), Cost: 1}}
		gone, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Millisecond, cancel)
		if _, err := f.Take(gone, time.Now(), cells); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want the caller's", err)
		}
		short, cancel := context.WithTimeout(context.Background(), 4*time.Millisecond)
		defer cancel()
		if _, err := f.Take(short, time.Now(), cells); err != nil {
			t.Errorf("no local answer in time: %v", err)
		}
		if short.Err() != nil {
			t.Error("the answer came after the caller's deadline")
		}
		if f.Degraded() {
			t.Error("the store was blamed")
		}
	})
}

// TestFailoverRealRedis: frozen, back, killed, back.
func TestFailoverRealRedis(t *testing.T) {
	server := redistest.Start(t)
	r, err := store.NewRedis(store.RedisConfig{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	f := failover(r, nil)
	cell := engine.Cell{Key: "k", Rate: fixed(t, 1000, 30*24*time.Hour), Cost: 1}
	counted := func() int64 {
		return 1000 - int64(take(t, f, cell).Remaining)
	}
	await := func(what string, degraded bool) {
		t.Helper()
		for begin := time.Now(); f.Degraded() != degraded; time.Sleep(5 * time.Millisecond) {
			if time.Since(begin) > 5*time.Second {
				t.Fatal(what)
			}
			counted()
		}
	}
	counted()
	await("Redis is up and not used", false)
	server.Freeze(t)
	begin := time.Now()
	await("a frozen Redis goes unnoticed", true)
	for range 200 {
		counted()
	}
	if took := time.Since(begin); took > 500*time.Millisecond {
		t.Errorf("200 requests took %s with Redis frozen", took)
	}
	server.Thaw(t)
	await("Redis is back and not used", false)
	if n := counted(); n > 20 {
		t.Errorf("Redis counted %d: the outage's hits should not be there", n)
	}
	server.Kill()
	await("a dead Redis goes unnoticed", true)
	server.Restart(t)
	await("Redis is back again and not used", false)
}
