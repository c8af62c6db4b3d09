package store_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"tollgate/ratelimit/engine"
	"tollgate/ratelimit/store"
	"tollgate/ratelimit/store/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a time that tests set.
type clock struct{ micros atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	// The real time, at the start of an hour: Redis's own expiry goes by the
	// real clock and must not take a counter before the test's clock does.
	c.micros.Store(time.Now().Truncate(time.Hour).UnixMicro())
	return c
}

func (c *clock) now() time.Time { return time.UnixMicro(c.micros.Load()) }

// toNext moves to the start of the next window.
func (c *clock) toNext(window time.Duration) {
	w := window.Microseconds()
	c.micros.Store((c.micros.Load()/w + 1) * w)
}

func (c *clock) advance(d time.Duration) { c.micros.Add(d.Microseconds()) }

type fixture struct {
	store store.Store
	clock *clock
}

func fixtures(t *testing.T) map[string]fixture {
	t.Helper()
	server := redistest.Start(t)
	c := newClock()
	r, err := store.NewRedis(store.RedisConfig{URL: server.URL, Clock: c.now, OpTimeout: 5 * time.Second, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return map[string]fixture{
		"memory": {store.NewMemory(0), newClock()},
		"redis":  {r, c},
	}
}

func fixed(t testing.TB, limit uint64, window time.Duration) engine.Rate {
	t.Helper()
	r, err := engine.NewFixed(limit, window)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func gcra(t testing.TB, limit uint64, window time.Duration, burst uint64) engine.Rate {
	t.Helper()
	r, err := engine.NewGCRA(limit, window, burst)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func calendar(t testing.TB, limit uint64, c engine.Calendar) engine.Rate {
	t.Helper()
	r, err := engine.NewCalendar(limit, c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (f fixture) take(t testing.TB, cells ...engine.Cell) []engine.Reading {
	t.Helper()
	readings, err := f.store.Take(context.Background(), f.clock.now(), cells)
	if err != nil {
		t.Fatal(err)
	}
	return readings
}

// TestContract: what every store must do.
func TestContract(t *testing.T) {
	contract := map[string]func(*testing.T, fixture){
		"fixed windows":               contractFixed,
		"gcra":                        contractGCRA,
		"all or nothing":              contractAllOrNothing,
		"shadow":                      contractShadow,
		"asking takes nothing":        contractPeek,
		"a new number keeps count":    contractNewNumber,
		"keys of any bytes":           contractKeys,
		"calendar windows":            contractCalendar,
		"a clock that steps back":     contractClockBack,
		"a clock set far back":        contractClockFarBack,
		"callers at once":             contractConcurrent,
		"large numbers":               contractLargeNumbers,
		"the request's context ended": contractContext,
	}
	all := fixtures(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		f := all[name]
		for _, rule := range slices.Sorted(maps.Keys(contract)) {
			// Every rule begins at the same place of its hour, whatever ran before.
			f.clock.toNext(time.Hour)
			t.Run(name+"/"+rule, func(t *testing.T) { contract[rule](t, f) })
		}
	}
}

func contractFixed(t *testing.T, f fixture) {
	f.clock.toNext(time.Minute)
	cell := engine.Cell{Key: "fixed", Rate: fixed(t, 2, time.Minute), Cost: 1}
	for i, want := range []bool{true, true, false} {
		if got := f.take(t, cell)[0]; got.Allowed != want {
			t.Fatalf("request %d: %+v", i, got)
		}
	}
	f.clock.advance(time.Minute)
	got := f.take(t, cell)[0]
	if want := (engine.Reading{Known: true, Allowed: true, Remaining: 1, Reset: time.Minute}); got != want {
		t.Fatalf("new window: %+v, want %+v", got, want)
	}
}

func contractGCRA(t *testing.T, f fixture) {
	cell := engine.Cell{Key: "gcra", Rate: gcra(t, 60, time.Minute, 3), Cost: 1}
	for i, want := range []bool{true, true, true, false} {
		if got := f.take(t, cell)[0]; got.Allowed != want {
			t.Fatalf("request %d: %+v", i, got)
		}
	}
	f.clock.advance(1500 * time.Millisecond)
	got := f.take(t, cell)[0]
	if want := (engine.Reading{Known: true, Allowed: true, Reset: 2500 * time.Millisecond}); got != want {
		t.Fatalf("after 1.5 s: %+v, want %+v", got, want)
	}
	got = f.take(t, cell)[0]
	if want := (engine.Reading{Known: true, Reset: 2500 * time.Millisecond, RetryAfter: 500 * time.Millisecond}); got != want {
		t.Fatalf("then: %+v, want %+v", got, want)
	}
}

func contractAllOrNothing(t *testing.T, f fixture) {
	wide := engine.Cell{Key: "wide", Rate: fixed(t, 100, time.Hour), Cost: 1}
	even := engine.Cell{Key: "even", Rate: gcra(t, 100, time.Hour, 0), Cost: 1}
	narrow := engine.Cell{Key: "narrow", Rate: fixed(t, 3, time.Hour), Cost: 1}
	for range 10 {
		f.take(t, wide, even, narrow)
	}
	for i, r := range f.take(t, wide, even, narrow) {
		if want := []uint64{97, 97, 0}[i]; r.Remaining != want {
			t.Errorf("cell %d: %d remain, want %d", i, r.Remaining, want)
		}
	}
}

func contractShadow(t *testing.T, f fixture) {
	shadow := engine.Cell{Key: "shadow", Rate: fixed(t, 2, time.Hour), Cost: 1, Shadow: true}
	enforced := engine.Cell{Key: "enforced", Rate: fixed(t, 4, time.Hour), Cost: 1}
	var got []string
	for range 6 {
		r := f.take(t, shadow, enforced)
		got = append(got, fmt.Sprintf("%v %v %d", r[0].Allowed, r[1].Allowed, r[1].Remaining))
	}
	want := []string{"true true 3", "true true 2", "false true 1", "false true 0", "false false 0", "false false 0"}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func contractPeek(t *testing.T, f fixture) {
	cell := engine.Cell{Key: "peek", Rate: fixed(t, 1, time.Hour)}
	for range 3 {
		if r := f.take(t, cell)[0]; !r.Allowed || r.Remaining != 1 {
			t.Fatalf("%+v", r)
		}
	}
	hit := cell
	hit.Cost = 1
	f.take(t, hit)
	if r := f.take(t, cell)[0]; r.Allowed {
		t.Fatalf("a full counter says there is room: %+v", r)
	}
}

func contractNewNumber(t *testing.T, f fixture) {
	for key, rate := range map[string]func(uint64) engine.Rate{
		"number/fixed": func(n uint64) engine.Rate { return fixed(t, n, time.Hour) },
		"number/gcra":  func(n uint64) engine.Rate { return gcra(t, n, time.Hour, n) },
	} {
		f.take(t, engine.Cell{Key: key, Rate: rate(10), Cost: 8})
		if r := f.take(t, engine.Cell{Key: key, Rate: rate(4), Cost: 1})[0]; r.Allowed || r.Remaining != 0 {
			t.Errorf("%s lowered: %+v", key, r)
		}
		if r := f.take(t, engine.Cell{Key: key, Rate: rate(20), Cost: 1})[0]; !r.Allowed || r.Remaining > 11 {
			t.Errorf("%s raised: %+v", key, r)
		}
	}
}

func contractKeys(t *testing.T, f fixture) {
	keys := []string{"k", "k ", " k", "k\x00", "k\r\n", "{k}", "}k{", "k:1", "ключ", "k\xff", string(make([]byte, 4096))}
	for range 2 {
		for _, key := range keys {
			f.take(t, engine.Cell{Key: "keys/" + key, Rate: fixed(t, 9, time.Hour), Cost: 1})
		}
	}
	for _, key := range keys {
		if r := f.take(t, engine.Cell{Key: "keys/" + key, Rate: fixed(t, 9, time.Hour)})[0]; r.Remaining != 7 {
			t.Errorf("%q: %d remain, want 7", key, r.Remaining)
		}
	}
}

// contractClockBack: from the border of a window back into the one before, and
// from within a window.
func contractClockBack(t *testing.T, f fixture) {
	for i, at := range []time.Duration{0, 10 * time.Second} {
		f.clock.toNext(time.Minute)
		f.clock.advance(at)
		for _, cell := range []engine.Cell{
			{Key: fmt.Sprint("back/fixed", i), Rate: fixed(t, 1, time.Minute), Cost: 1},
			{Key: fmt.Sprint("back/gcra", i), Rate: gcra(t, 1, time.Minute, 1), Cost: 1},
		} {
			if r := f.take(t, cell)[0]; !r.Allowed {
				t.Fatalf("%s: %+v", cell.Key, r)
			}
			f.clock.advance(-time.Millisecond)
			if r := f.take(t, cell)[0]; r.Allowed {
				t.Errorf("%s: a second helping: %+v", cell.Key, r)
			}
			f.clock.advance(time.Millisecond)
		}
	}
}

// contractClockFarBack: a clock that is set back by windows, three times, hands
// out nothing for it and shuts nobody out for longer than a window.
func contractClockFarBack(t *testing.T, f fixture) {
	for i, back := range []time.Duration{150 * time.Second, 48 * time.Hour} {
		for name, rate := range map[string]engine.Rate{"fixed": fixed(t, 2, time.Minute), "gcra": gcra(t, 2, time.Minute, 2)} {
			f.clock.toNext(time.Minute)
			cell := engine.Cell{Key: fmt.Sprint("far back/", name, i), Rate: rate, Cost: 1}
			spend := func() (n int) {
				for f.take(t, cell)[0].Allowed {
					n++
				}
				return n
			}
			if n := spend(); n != 2 {
				t.Fatalf("%s: %d admitted of 2", name, n)
			}
			for range 3 {
				f.clock.advance(-back)
				waited := time.Duration(0)
				n := spend()
				for ; n == 0 && waited <= time.Minute; waited += time.Second {
					f.clock.advance(time.Second)
					n = spend()
				}
				if waited == 0 || waited > time.Minute || n > 2 {
					t.Errorf("%s, %s back: %d admitted after %s", name, back, n, waited)
				}
			}
		}
	}
}

// contractCalendar: every week and month of four years, one of them a leap year.
func contractCalendar(t *testing.T, f fixture) {
	was := f.clock.micros.Load()
	defer f.clock.micros.Store(was)
	begins := func(kind string, at time.Time, c engine.Calendar) {
		cell := engine.Cell{Key: "calendar/" + kind, Rate: calendar(t, 1, c), Cost: 1}
		f.clock.micros.Store(at.UnixMicro())
		if r := f.take(t, cell)[0]; !r.Allowed {
			t.Fatalf("%s of %s: %+v", kind, at, r)
		}
		f.clock.advance(-time.Microsecond) // back into the window before
		if r := f.take(t, cell)[0]; r.Allowed {
			t.Fatalf("%s of %s: a second helping: %+v", kind, at, r)
		}
	}
	for month := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC); month.Year() < 2030; month = month.AddDate(0, 1, 0) {
		begins("month", month, engine.Month)
	}
	for monday := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC); monday.Year() < 2030; monday = monday.AddDate(0, 0, 7) {
		begins("week", monday, engine.Week)
	}
}

// contractConcurrent: 32 callers, three counters in opposite orders.
func contractConcurrent(t *testing.T, f fixture) {
	cells := []engine.Cell{
		{Key: "at-once/a", Rate: fixed(t, 500, time.Hour), Cost: 1},
		{Key: "at-once/b", Rate: gcra(t, 400, time.Hour, 0), Cost: 1},
		{Key: "at-once/c", Rate: fixed(t, 300, time.Hour), Cost: 1},
	}
	reversed := []engine.Cell{cells[2], cells[1], cells[0]}
	var admitted atomic.Int64
	var wg sync.WaitGroup
	for caller := range 32 {
		wg.Go(func() {
			mine := cells
			if caller%2 == 1 {
				mine = reversed
			}
			for range 20 {
				readings, err := f.store.Take(context.Background(), f.clock.now(), mine)
				if err != nil {
					t.Error(err)
					return
				}
				if engine.Admitted(mine, readings) {
					admitted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if admitted.Load() != 300 {
		t.Fatalf("admitted %d, want 300", admitted.Load())
	}
	for i, c := range cells {
		c.Cost = 0
		if r := f.take(t, c)[0]; r.Remaining != []uint64{200, 100, 0}[i] {
			t.Errorf("%s: %d remain", c.Key, r.Remaining)
		}
	}
}

func contractLargeNumbers(t *testing.T, f fixture) {
	tests := []struct {
		cell engine.Cell
		want uint64 // remaining after it
	}{
		{engine.Cell{Key: "large/fixed", Rate: fixed(t, engine.MaxLimit, 3660*24*time.Hour), Cost: 1e15}, engine.MaxLimit - 1e15},
		{engine.Cell{Key: "large/gcra", Rate: gcra(t, 999_999, 720*time.Hour, 3_000_000), Cost: 2_999_999}, 1},
		{engine.Cell{Key: "large/fast", Rate: gcra(t, 300_000, time.Second, 300_000), Cost: 299_990}, 10},
		{engine.Cell{Key: "large/cost", Rate: gcra(t, 10, time.Second, 10), Cost: 1 << 63}, 10},
	}
	for _, test := range tests {
		r := f.take(t, test.cell)[0]
		if r.Remaining != test.want || r.Allowed != (test.cell.Cost < 1<<63) {
			t.Errorf("%s: %+v, want %d remaining", test.cell.Key, r, test.want)
		}
	}
}

func contractContext(t *testing.T, f fixture) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	cell := engine.Cell{Key: "context", Rate: fixed(t, 1, time.Hour), Cost: 1}
	readings, err := f.store.Take(ctx, f.clock.now(), []engine.Cell{cell})
	if err == nil && len(readings) != 1 {
		t.Fatalf("neither an error nor a reading: %v", readings)
	}
}

// TestStoresAgree: memory is the oracle of the script, reading for reading.
func TestStoresAgree(t *testing.T) {
	both := fixtures(t)
	memory, redis := both["memory"], both["redis"]
	memory.clock = redis.clock
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		rates := []engine.Rate{
			fixed(t, rapid.Uint64Range(0, 9).Draw(rt, "limit"), time.Second),
			fixed(t, 7, rapid.SampledFrom([]time.Duration{7 * time.Second, time.Minute}).Draw(rt, "window")),
			gcra(t, rapid.Uint64Range(0, 1000).Draw(rt, "rate"), time.Second, rapid.Uint64Range(0, 9).Draw(rt, "burst")),
			gcra(t, rapid.Uint64Range(1, 9).Draw(rt, "slow"), 720*time.Hour, 0),
			calendar(t, 5, engine.Week), calendar(t, 5, engine.Month),
		}
		shadow := rapid.IntRange(0, 2*len(rates)).Draw(rt, "shadow")
		for range rapid.IntRange(1, 30).Draw(rt, "requests") {
			redis.clock.advance(time.Duration(rapid.Int64Range(-1000, 900_000).Draw(rt, "pause")) * time.Microsecond)
			if rapid.IntRange(0, 9).Draw(rt, "days") == 0 {
				redis.clock.advance(time.Duration(rapid.Int64Range(1, 40).Draw(rt, "how many")) * 24 * time.Hour)
			}
			var cells []engine.Cell
			for i, r := range rates {
				if rapid.IntRange(0, 2).Draw(rt, "use") > 0 {
					cells = append(cells, engine.Cell{Key: fmt.Sprintf("agree/%d/%d", run, i), Rate: r, Cost: rapid.Uint64Range(0, 3).Draw(rt, "cost"), Shadow: i == shadow})
				}
			}
			if len(cells) == 0 {
				continue
			}
			want, got := memory.take(t, cells...), redis.take(t, cells...)
			if !reflect.DeepEqual(want, got) {
				rt.Fatalf("at %d, %+v:\nmemory %+v\nredis  %+v", redis.clock.micros.Load(), cells, want, got)
			}
		}
	})
}
