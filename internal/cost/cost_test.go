package cost_test

import (
	"sync"
	"testing"

	"tollgate/internal/cost"
)

// TestOf: what other goroutines allocate for the operation counts too.
func TestOf(t *testing.T) {
	got := cost.Of(100, func() {
		var kept [][]byte
		var wg sync.WaitGroup
		wg.Go(func() {
			for range 10 {
				kept = append(kept, make([]byte, 1024))
			}
		})
		wg.Wait()
	})
	if got.Allocs < 10 || got.Allocs > 40 || got.Bytes < 10*1024 || got.Bytes > 14*1024 {
		t.Errorf("%+v for ten allocations of a KiB", got)
	}
}
