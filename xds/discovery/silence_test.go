package discovery_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"tollgate/xds/discovery"
)

// fleet is a registry with instances that can be told to fall silent.
type fleet struct {
	*discovery.Registry
	speaks map[string]bool
}

func (f *fleet) beat(t *testing.T) {
	t.Helper()
	for id, speaks := range f.speaks {
		if speaks {
			f.put(t, id)
		}
	}
}

func (f *fleet) put(t *testing.T, id string) {
	t.Helper()
	var n int
	if _, err := fmt.Sscanf(id, "i%d", &n); err != nil {
		t.Fatal(err)
	}
	if err := f.Put("order", id, discovery.Registration{Address: fmt.Sprintf("10.0.%d.%d:80", n/250, n%250+1)}); err != nil {
		t.Fatal(err)
	}
	f.speaks[id] = true
}

// pass lets time go by in heartbeats.
func (f *fleet) pass(t *testing.T, d time.Duration) {
	t.Helper()
	for ; d > 0; d -= 3 * time.Second {
		f.beat(t)
		time.Sleep(3 * time.Second)
	}
}

func (f *fleet) count() int { return len(f.Snapshot()["order"]) }

// TestSilence: few that fall silent are dropped, whatever share they are; many
// that fall silent together stay until they are heard, leave, are replaced, or
// an operator lets them go.
func TestSilence(t *testing.T) {
	for name, c := range map[string]struct {
		all, silent int
		then        func(t *testing.T, f *fleet)
		kept, left  int // before and after then
	}{
		"a few of a few":   {9, 9, nil, 0, 0},
		"a third":          {40, 12, nil, 28, 28},
		"many":             {40, 13, nil, 40, 40},
		"all":              {10, 10, nil, 10, 10},
		"heard again":      {40, 20, func(t *testing.T, f *fleet) { hush(f, 20, true); f.pass(t, 12*time.Second) }, 40, 40},
		"they leave":       {40, 20, func(t *testing.T, f *fleet) { leave(f, 20); f.pass(t, 12*time.Second) }, 40, 20},
		"replaced":         {40, 20, func(t *testing.T, f *fleet) { join(t, f, 100, 20); f.pass(t, 12*time.Second) }, 40, 40},
		"half is replaced": {40, 20, func(t *testing.T, f *fleet) { join(t, f, 100, 6); f.pass(t, 12*time.Second) }, 40, 46},
		"allowed":          {40, 20, func(t *testing.T, f *fleet) { _ = f.AllowShrink(); f.pass(t, 3*time.Second) }, 40, 20},
		"for an hour":      {40, 20, func(t *testing.T, f *fleet) { f.pass(t, time.Hour) }, 40, 40},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fleet{Registry: discovery.NewRegistry(time.Now), speaks: map[string]bool{}}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- f.Run(ctx) }()
				join(t, f, 0, c.all)
				f.pass(t, 40*time.Second)
				hush(f, c.silent, false)
				f.pass(t, 20*time.Second)
				if f.count() != c.kept || (f.Silent() != nil) != (c.kept == c.all && c.silent > 0) {
					t.Errorf("%d stay, want %d; the operator is told %v", f.count(), c.kept, f.Silent())
				}
				if c.then != nil {
					c.then(t, f)
				}
				if f.count() != c.left {
					t.Errorf("%d are left, want %d", f.count(), c.left)
				}
				cancel()
				if err := <-ended; err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

func join(t *testing.T, f *fleet, from, n int) {
	t.Helper()
	for i := range n {
		f.put(t, fmt.Sprintf("i%d", from+i))
	}
}

func hush(f *fleet, n int, speaks bool) {
	for i := range n {
		f.speaks[fmt.Sprintf("i%d", i)] = speaks
	}
}

func leave(f *fleet, n int) {
	for i := range n {
		id := fmt.Sprintf("i%d", i)
		delete(f.speaks, id)
		f.Delete("order", id)
	}
}

// TestDropAnyNumber: an operator who wants it so is obeyed.
func TestDropAnyNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{Registry: discovery.NewRegistry(time.Now), speaks: map[string]bool{}}
		f.DropAnyNumber()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- f.Run(ctx) }()
		join(t, f, 0, 20)
		time.Sleep(15 * time.Second)
		if f.count() != 0 || f.Silent() != nil {
			t.Errorf("%d stay, %v", f.count(), f.Silent())
		}
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	})
}

// TestOneServiceKeepsNobodyElses: a service that registers many and lets them
// fall silent keeps no dead instance of another, nor its address, nor a place;
// a network that hides half of several small services is noticed all the same.
func TestOneServiceKeepsNobodyElses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := discovery.NewRegistry(time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		put := func(service, id, address string, ttl int) error {
			return r.Put(service, id, discovery.Registration{Address: address, TTL: ttl})
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		for i := range 2000 {
			must(put("evil", fmt.Sprint(i), fmt.Sprintf("10.1.%d.%d:80", i/250, i%250+1), 2))
		}
		must(put("good", "1", "10.0.0.1:80", 2))
		time.Sleep(time.Minute)
		if got := r.Snapshot(); len(got["good"]) != 0 || len(got["evil"]) != 2000 {
			t.Errorf("%d good ones are kept, %d evil ones", len(got["good"]), len(got["evil"]))
		}
		must(put("good", "2", "10.1.0.1:80", 300)) // where a silent one is
		if got := r.Snapshot(); len(got["good"]) != 1 || len(got["evil"]) != 1999 {
			t.Errorf("%d good ones, %d evil ones", len(got["good"]), len(got["evil"]))
		}
		must(put("evil", "live", "10.2.0.1:80", 300))
		must(put("evil", "more", "10.2.0.2:80", 300)) // its own silent ones give way
		if got := r.Snapshot(); len(got["evil"]) != 2 {
			t.Errorf("%d evil ones", len(got["evil"]))
		}
		for s := range 5 {
			for i := range 4 {
				must(put(fmt.Sprintf("s%d", s), fmt.Sprint(i), fmt.Sprintf("10.3.%d.%d:80", s, i+1), []int{2, 300}[i%2]))
			}
		}
		time.Sleep(10 * time.Second)
		if got := r.Snapshot(); len(got["s0"]) != 4 || len(got["s4"]) != 4 {
			t.Errorf("of several small services half was dropped: %v", got["s0"])
		}
		cancel()
		must(<-ended)
	})
}
