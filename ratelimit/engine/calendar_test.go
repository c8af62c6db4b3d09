package engine_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"tollgate/ratelimit/engine"
)

func calendar(t fataler, limit uint64, c engine.Calendar) engine.Rate {
	t.Helper()
	r, err := engine.NewCalendar(limit, c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestCalendarWindows: at any instant a window ends where time.Date says that
// the next week or month of UTC begins, and its count lives until then.
func TestCalendarWindows(t *testing.T) {
	ends := map[engine.Calendar]func(time.Time) time.Time{
		engine.Week: func(at time.Time) time.Time {
			sinceMonday := (int(at.Weekday()) + 6) % 7
			return time.Date(at.Year(), at.Month(), at.Day()-sinceMonday+7, 0, 0, 0, 0, time.UTC)
		},
		engine.Month: func(at time.Time) time.Time {
			return time.Date(at.Year(), at.Month()+1, 1, 0, 0, 0, 0, time.UTC)
		},
	}
	first, last := time.Date(1972, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro(), time.Date(2201, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	rapid.Check(t, func(t *rapid.T) {
		c := rapid.SampledFrom([]engine.Calendar{engine.Week, engine.Month}).Draw(t, "calendar")
		at := time.UnixMicro(rapid.Int64Range(first, last).Draw(t, "at")).UTC()
		if rapid.Bool().Draw(t, "near a border") {
			at = ends[c](at).Add(time.Duration(rapid.Int64Range(-2, 2).Draw(t, "off")) * time.Microsecond)
		}
		r := calendar(t, 1, c)
		var s engine.State
		end := ends[c](at)
		if got := one(&s, r, at.UnixMicro(), 1); !got.Allowed || got.Reset != end.Sub(at) {
			t.Fatalf("at %s: %+v, want the window to end at %s", at, got, end)
		}
		if got := r.Expiry(s); got != end.UnixMicro() {
			t.Fatalf("at %s: the count lives until %s, want %s", at, time.UnixMicro(got).UTC(), end)
		}
		if one(&s, r, end.UnixMicro()-1, 1).Allowed {
			t.Fatalf("a second helping before %s", end)
		}
		if !one(&s, r, end.UnixMicro(), 1).Allowed {
			t.Fatalf("no new window at %s", end)
		}
		if one(&s, r, end.UnixMicro()-1, 1).Allowed {
			t.Fatalf("a second helping by a clock that steps back over %s", end)
		}
	})
}

// TestShare: n limiters that each admit their share of what was left admit no
// more than that together, and a fresh window leaves everybody at least one.
func TestShare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit, n := rapid.Uint64Range(1, 200).Draw(t, "limit"), rapid.IntRange(1, 7).Draw(t, "limiters")
		rate := fixed(t, limit, time.Hour)
		if rapid.Bool().Draw(t, "gcra") {
			rate = gcra(t, limit, time.Hour, rapid.Uint64Range(1, 200).Draw(t, "burst"))
		}
		var s engine.State
		for range rapid.IntRange(0, 200).Draw(t, "used") {
			one(&s, rate, start, 1)
		}
		s = rate.At(s, start)
		left, total := one(&s, rate, start, 0).Remaining, uint64(0)
		part := rate.Share(n)
		for range n {
			mine := rate.ShareState(s, start, n)
			for one(&mine, part, start, 1).Allowed {
				if total++; total > 1000 {
					t.Fatal("a share without end")
				}
			}
		}
		whole := rate.Limit
		if rate.Algorithm == engine.GCRA {
			whole = uint64(rate.Tolerance / rate.Interval)
		}
		switch {
		case left == whole && whole < uint64(n):
			if total != uint64(n) {
				t.Fatalf("%d admitted by %d limiters of a fresh %d", total, n, whole)
			}
		case total > left || total+uint64(n) <= left:
			t.Fatalf("%d admitted by %d limiters of %d that were left", total, n, left)
		}
	})
}

// TestSpent: 255 exactly when no further hit fits.
func TestSpent(t *testing.T) {
	for _, rate := range []engine.Rate{fixed(t, 3, time.Hour), gcra(t, 3, time.Hour, 3), fixed(t, 0, time.Hour)} {
		var s engine.State
		for {
			spent, more := rate.Spent(s, start), one(&s, rate, start, 1).Allowed
			if (spent == 255) == more {
				t.Fatalf("%+v: spent %d, another fits: %v", rate, spent, more)
			}
			if !more {
				break
			}
		}
	}
}
