package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tollgate/ratelimit/engine"
	"tollgate/ratelimit/store"
)

// TestOracle: both stores say of every request what the oracle says: fixed and
// calendar windows, buckets, costs, shadows, several limits at once, and a clock
// that steps, by a millisecond or a month, on or back.
func TestOracle(t *testing.T) {
	for who, f := range fixtures(t) {
		t.Run(who, func(t *testing.T) {
			run, base := 0, f.clock.micros.Load()
			rapid.Check(t, func(t *rapid.T) {
				run++
				f.clock.micros.Store(base)
				name := fmt.Sprintf("%s/%d/", t.Name(), run)
				wants := drawWants(t)
				shadow := rapid.SampledFrom([]string{"", "", "a", "b"}).Draw(t, "shadow")
				oracle := newNaive(named(wants, name))
				for range rapid.IntRange(1, 40).Draw(t, "requests") {
					f.clock.advance(drawStep(t))
					if cells := drawCells(t, wants, name, shadow); len(cells) > 0 {
						askBoth(t, who, f.store, oracle, f.clock.now(), cells)
					}
				}
			})
		})
	}
}

// TestOracleOfTrips: a trip of many requests, with debts in front, leaves Redis
// and its callers with what the oracle says.
func TestOracleOfTrips(t *testing.T) {
	f := fixtures(t)["redis"]
	redis, base, run := f.store.(*store.Redis), f.clock.micros.Load(), 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		f.clock.micros.Store(base)
		name := fmt.Sprintf("trips/%d/", run)
		wants := drawWants(t)
		oracle := newNaive(named(wants, name))
		for range rapid.IntRange(1, 12).Draw(t, "trips") {
			f.clock.advance(drawStep(t))
			at := f.clock.now()
			trip := store.Trip{Debts: drawDebts(t, wants, name, at)}
			for range rapid.IntRange(0, 4).Draw(t, "requests") {
				if cells := drawCells(t, wants, name, ""); len(cells) > 0 {
					trip.Requests = append(trip.Requests, cells)
				}
			}
			if len(trip.Requests)+len(trip.Debts) == 0 {
				continue
			}
			settled, err := redis.Settle(context.Background(), trip)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range trip.Debts {
				oracle.pay(at, d)
			}
			for i, cells := range trip.Requests {
				want, _ := oracle.take(at, cells)
				agree(t, "redis", at, cells, want, settled.Readings[i])
			}
			if settled.Now != at.UnixMicro() {
				t.Fatalf("the trip was settled at %d, want %d", settled.Now, at.UnixMicro())
			}
			for key, c := range settled.Counters {
				peek := engine.Cell{Key: key, Rate: c.Rate}
				want := oracle.reading(peek, oracle.look(key, at), at, oracle.fits(key, oracle.look(key, at), 0))
				if got := c.Rate.Read(c.State, settled.Now, 0, want.Allowed); got != want {
					t.Fatalf("%s is left as %+v, naive says %+v", key, got, want)
				}
			}
		}
	})
}

// drawDebts is hits of this window or another one, to book or to give back.
func drawDebts(t *rapid.T, wants map[string]wanted, name string, at time.Time) []store.Debt {
	var debts []store.Debt
	for _, key := range []string{"a", "b", "c", "d", "e"} {
		w, ok := wants[key]
		if !ok || rapid.IntRange(0, 3).Draw(t, "owe") > 0 {
			continue
		}
		d := store.Debt{Key: name + key, Rate: w.rate(t), Hits: rapid.Int64Range(-5, 20).Draw(t, "hits")}
		if d.Hits == 0 {
			continue
		}
		when := at
		if rapid.IntRange(0, 3).Draw(t, "another window") == 0 {
			when = at.Add(-w.window)
		}
		if w.burst == 0 {
			begins, _ := w.windowOf(when)
			d.Mark = begins.UnixMicro()
		} else {
			d.Mark = when.Add(time.Duration(max(d.Hits, 0) * w.price())).UnixMicro()
		}
		debts = append(debts, d)
	}
	return debts
}
