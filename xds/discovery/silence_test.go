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
		"allowed":          {40, 20, func(t *testing.T, f *fleet) { f.AllowShrink(); f.pass(t, 3*time.Second) }, 40, 20},
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
