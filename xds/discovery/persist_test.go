package discovery_test

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tollgate/xds/discovery"
)

// TestRestore: a control plane that comes back knows who was registered, and
// drops in time who is not there any more.
func TestRestore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry.json")
	synctest.Test(t, func(t *testing.T) {
		first := discovery.NewRegistry(time.Now)
		if err := first.Restore(path); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- first.Run(ctx) }()
		for id, state := range map[string]string{"a": "up", "b": "draining"} {
			if err := first.Put("order", id, discovery.Registration{Address: "127.0.0.1:1", Weight: 3, Zone: "z", State: state, TTL: 10}); err != nil {
				t.Fatal(err)
			}
		}
		want := first.Snapshot()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}

		second := discovery.NewRegistry(time.Now)
		if err := second.Restore(path); err != nil {
			t.Fatal(err)
		}
		if got := second.Snapshot(); !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		ctx, cancel = context.WithCancel(t.Context())
		go func() { done <- second.Run(ctx) }()
		time.Sleep(11 * time.Second)
		if got := second.Snapshot(); len(got["order"]) != 0 {
			t.Errorf("after their time to live: %v", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

// TestControlPlanesThatShareAFolder: each comes back with what it knew itself,
// whichever is back first; one too many is told so.
func TestControlPlanesThatShareAFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry.json")
	start := func() (r *discovery.Registry, end func()) {
		r = discovery.NewRegistry(time.Now)
		if err := r.Restore(path); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		return r, func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	put := func(r *discovery.Registry, id, address string) {
		if err := r.Put("order", id, discovery.Registration{Address: address, TTL: 300}); err != nil {
			t.Fatal(err)
		}
	}
	one, endOne := start()
	two, endTwo := start()
	put(one, "a", "10.0.0.1:80")
	put(one, "b", "10.0.0.2:80")
	put(two, "a", "10.0.0.1:80") // the second does not know of b yet
	endOne()
	endTwo() // writes last
	one, endOne = start()
	two, endTwo = start()
	if a, b := len(one.Snapshot()["order"]), len(two.Snapshot()["order"]); a != 2 || b != 1 {
		t.Errorf("the first is back with %d instances and the second with %d, want 2 and 1", a, b)
	}
	endOne()
	defer endTwo()
	// The place that became free is taken before another one.
	three, endThree := start()
	defer endThree()
	if n := len(three.Snapshot()["order"]); n != 2 {
		t.Errorf("the third is back with %d, want what the first left", n)
	}
	for range 6 {
		_, end := start()
		defer end()
	}
	if err := discovery.NewRegistry(time.Now).Restore(path); err == nil || !strings.Contains(err.Error(), "--data-dir of its own") {
		t.Errorf("the ninth: %v", err)
	}
}

func TestRestoreSaysWhatToDoWithADamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry.json")
	for _, text := range []string{"{", `[{"service":"../x","instance":"a","registration":{"address":"127.0.0.1:1"}}]`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := discovery.NewRegistry(time.Now).Restore(path); err == nil || !strings.Contains(err.Error(), "remove it") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestSaveIsTriedAgain: a disk that could not take the instances gets them
// when it can, without another change, and a sudden end loses nothing then.
func TestSaveIsTriedAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	path := filepath.Join(dir, "registry.json")
	synctest.Test(t, func(t *testing.T) {
		r := discovery.NewRegistry(time.Now)
		if err := r.Restore(path); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		if err := r.Put("order", "a", discovery.Registration{Address: "127.0.0.1:1", TTL: 300}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		if r.Fault() == nil {
			t.Error("nobody is told that the disk takes nothing")
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		if err := r.Fault(); err != nil {
			t.Errorf("mended, and still: %v", err)
		}
		if data, err := os.ReadFile(path); err != nil || !strings.Contains(string(data), `"order"`) {
			t.Errorf("on disk before the end: %q, %v", data, err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}
