package clientrate_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"tollgate/internal/clientrate"
)

var at = time.Date(2026, 11, 21, 4, 0, 0, 0, time.UTC)

func TestClient(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"9.9.9.1":                "9.9.9.1",
		"::ffff:9.9.9.1":         "9.9.9.1",
		"2001:db8::1":            "2001:db8::",
		"2001:db8::ffff:2:3:4":   "2001:db8::",
		"2001:db8:0:1::1":        "2001:db8:0:1::",
		"fe80::1%eth0":           "fe80::",
		"":                       "invalid IP",
		"9.9.9.1:80":             "invalid IP",
		"not an address at all!": "invalid IP",
	} {
		if got := clientrate.Client(address).String(); got != want {
			t.Errorf("Client(%q) = %s, want %s", address, got, want)
		}
	}
}

func TestCounterForgetsWithTheSecond(t *testing.T) {
	t.Parallel()
	var c clientrate.Counter
	a, b := clientrate.Client("10.0.0.1"), clientrate.Client("10.0.0.2")
	for i := 1; i <= 3; i++ {
		if n, known := c.Add(a, at); n != i || !known {
			t.Errorf("Add = %d, %t, want %d, true", n, known, i)
		}
	}
	if n := c.Count(b, at); n != 0 {
		t.Errorf("another client has %d", n)
	}
	if n := c.Count(a, at.Add(999*time.Millisecond)); n != 3 {
		t.Errorf("within the second: %d, want 3", n)
	}
	if n := c.Count(a, at.Add(time.Second)); n != 0 {
		t.Errorf("a second later: %d, want 0", n)
	}
	// Requests that waited, or a clock that is stepped, do not make it forget.
	now := at.Add(time.Minute)
	c.Add(a, now)
	for i, back := range []time.Duration{time.Nanosecond, 300 * time.Millisecond, time.Second, 2 * time.Second} {
		c.Add(b, now.Add(-back))
		if n, _ := c.Add(a, now); n != i+2 {
			t.Errorf("after one that is late by %v: %d, want %d", back, n, i+2)
		}
	}
	// A clock that is set back by more starts over, and does not stand still.
	if n := c.Count(a, now.Add(-time.Hour)); n != 0 {
		t.Errorf("after the clock was set back: %d, want 0", n)
	}
	c.Add(a, now.Add(-time.Hour))
	if n := c.Count(a, now.Add(-time.Hour+time.Second)); n != 0 {
		t.Errorf("a second after it was set back: %d, want 0", n)
	}
}

// A million addresses in one second: bounded memory, and no one is taken for
// another.
func TestCounterIsBounded(t *testing.T) { //nolint:paralleltest // it reads the heap
	var c clientrate.Counter
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	first := netip.MustParseAddr("10.0.0.0")
	known := 0
	for a, i := first, 0; i < 1_000_000; a, i = a.Next(), i+1 {
		n, ok := c.Add(a, at)
		if n > 1 {
			t.Fatalf("the first of %s counts as number %d", a, n)
		}
		if ok {
			known++
		}
	}
	runtime.ReadMemStats(&after)
	if known != 1<<14 {
		t.Errorf("%d clients are told apart, want %d", known, 1<<14)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("a million addresses hold %d bytes", grown)
	}
	if n, ok := c.Add(first, at); n != 2 || !ok {
		t.Errorf("one who was known is now %d, %t, want 2, true", n, ok)
	}
}

func TestSampler(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		clients, each int
		written, left int
	}{
		"one that is quiet":     {1, 10, 10, 0},
		"one that floods":       {1, 5000, 10, 4990},
		"ten that flood":        {10, 100, 100, 900},
		"a thousand, once each": {1000, 1, 100, 900},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s clientrate.Sampler
			written := 0
			for range c.each {
				for i := range c.clients {
					take, past := s.Take(clientrate.Client(fmt.Sprintf("10.0.%d.%d", i>>8, i&255)), at)
					if take {
						written++
					}
					if past.Left != 0 {
						t.Fatalf("a summary before the second is over: %+v", past)
					}
				}
			}
			if written != c.written || s.Left() != uint64(c.left) {
				t.Errorf("%d written, %d left out; want %d, %d", written, s.Left(), c.written, c.left)
			}
			take, past := s.Take(clientrate.Client("10.9.9.9"), at.Add(time.Second))
			if !take || past.Left != c.left {
				t.Errorf("a second later: take %t, summary %+v, want one of %d", take, past, c.left)
			}
			if _, again := s.Take(clientrate.Client("10.9.9.9"), at.Add(2*time.Second)); again.Left != 0 {
				t.Errorf("the summary is told twice: %+v", again)
			}
		})
	}
}

// A denial that is told late neither ends the second nor has its summary told.
func TestLateDenials(t *testing.T) {
	t.Parallel()
	var s clientrate.Sampler
	client := clientrate.Client("10.0.0.1")
	written := 0
	for range 1000 {
		for _, now := range []time.Time{at, at.Add(-300 * time.Millisecond), at.Add(-time.Second)} {
			take, past := s.Take(client, now)
			if take {
				written++
			}
			if past.Left != 0 {
				t.Fatalf("a summary: %+v", past)
			}
		}
	}
	if written != 10 {
		t.Errorf("%d of one second are written, want 10", written)
	}
}

func TestSummaryNamesTheWorst(t *testing.T) {
	t.Parallel()
	var s clientrate.Sampler
	for i := range 300 {
		s.Take(clientrate.Client("10.0.0.1"), at)
		if i%10 == 0 {
			s.Take(clientrate.Client(fmt.Sprintf("2001:db8::%x", i)), at)
		}
	}
	_, past := s.Take(clientrate.Client("10.0.0.2"), at.Add(time.Second))
	if want := (clientrate.Summary{Left: 310, Worst: netip.MustParseAddr("10.0.0.1"), Count: 300}); past != want {
		t.Errorf("summary %+v, want %+v: 30 of one /64 are one client", past, want)
	}
}
