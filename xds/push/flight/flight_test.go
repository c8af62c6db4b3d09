package flight_test

import (
	"maps"
	"testing"
	"time"

	"tollgate/xds/push/flight"
	"tollgate/xds/release"
)

func batch(nonce string, names ...string) *flight.Batch {
	b := &flight.Batch{Nonce: nonce}
	for _, name := range names {
		b.Resources = append(b.Resources, &release.Resource{Name: name})
	}
	return b
}

func nonces(batches []*flight.Batch) (out string) {
	for _, b := range batches {
		out += b.Nonce
	}
	return out
}

func TestAnswers(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	var f flight.Flight
	for _, nonce := range []string{"1", "2", "3", "4", "5"} {
		f.Add(batch(nonce, "r"+nonce), start)
	}
	if got := f.Carries(map[string]struct{}{"r4": {}, "r6": {}}); !maps.Equal(got, map[string]bool{"r4": true}) || len(f.Carries(nil)) > 0 {
		t.Error("not what is on its way")
	}
	if b, passed := f.Answer("9", start); b != nil || passed != nil {
		t.Error("an unknown nonce was answered")
	}
	if b := f.Take("2", start); b == nil || nonces(f.All()) != "1345" {
		t.Errorf("left %s", nonces(f.All()))
	}
	if b, passed := f.Answer("4", start); b.Nonce != "4" || nonces(passed) != "13" || nonces(f.All()) != "5" {
		t.Errorf("passed %s, left %s", nonces(passed), nonces(f.All()))
	}
	f.Add(batch("6"), start.Add(time.Second))
	if !f.Oldest().Equal(start) || f.Len() != 2 {
		t.Error("not the oldest")
	}
	if old := f.Trim(1); nonces(old) != "5" || nonces(f.All()) != "6" {
		t.Errorf("trimmed %s", nonces(old))
	}
	f.Trim(0)
	if _, owed := f.Due(); owed || !f.Oldest().IsZero() {
		t.Error("nothing is owed")
	}
}

// TestPatience: what nothing is heard of is late after 2 s, and what was sent
// again for nothing after longer and longer.
func TestPatience(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	var f flight.Flight
	late := func(after time.Duration, want string) {
		t.Helper()
		now = now.Add(after)
		if got := nonces(f.Late(now)); got != want {
			t.Fatalf("late %q, want %q", got, want)
		}
	}
	f.Add(batch("1"), now)
	late(time.Second, "")
	f.Add(batch("2"), now)
	late(time.Second, "1") // 2 is one second old only
	late(time.Second, "")
	late(2*time.Second, "2") // twice as patient by now
	f.Add(batch("3"), now)
	late(7*time.Second, "")
	late(time.Second, "3")
	f.Add(batch("4"), now)
	f.Add(batch("5"), now)
	f.Answer("4", now.Add(time.Second)) // it lives: two seconds from now on
	late(2*time.Second, "")
	late(time.Second, "5")
	for range 10 {
		f.Add(batch("6"), now)
		late(31*time.Second, "6")
	}
	// One who reads slowly is not late: the time counts from when all had left.
	f.Trim(0)
	f.Add(batch("7"), now)
	f.Handed(now, now.Add(time.Minute))
	if due, _ := f.Due(); due.Before(now.Add(time.Minute + flight.Patience)) {
		t.Fatalf("due %s after", due.Sub(now))
	}
	f.Add(batch("8"), now.Add(2*time.Minute))
	f.Handed(now.Add(2*time.Minute), now.Add(3*time.Minute))
	if !f.Oldest().Equal(now.Add(time.Minute)) {
		t.Fatal("an earlier plan's time was moved")
	}
}
