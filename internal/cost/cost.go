// Package cost counts what an operation costs, for tests that gate it.
// Invariant: it counts and never times, so that a gate says the same on a busy
// machine as on an idle one; under the race detector, which allocates by
// itself, it reports and gates nothing.
package cost

import (
	"runtime"
	"testing"
)

// Cost is what one run of an operation costs, by counts.
type Cost struct {
	Allocs uint64 // objects allocated
	Bytes  uint64 // bytes allocated
}

// Of returns the cost of one run of f, all goroutines of the process counted,
// as the mean over runs after one that is not counted.
func Of(runs int, f func()) Cost {
	f()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		f()
	}
	runtime.ReadMemStats(&after)
	return Cost{Allocs: (after.Mallocs - before.Mallocs) / uint64(runs), Bytes: (after.TotalAlloc - before.TotalAlloc) / uint64(runs)}
}

// AtMost logs what an operation costs and fails the test if that is more than
// the bound.
func AtMost(t testing.TB, what string, got, bound Cost) {
	t.Helper()
	t.Logf("%s: %d allocations, %d bytes; at most %d, %d", what, got.Allocs, got.Bytes, bound.Allocs, bound.Bytes)
	if !raced && (got.Allocs > bound.Allocs || got.Bytes > bound.Bytes) {
		t.Errorf("%s costs %d allocations and %d bytes, more than %d and %d: see what was added with go test -memprofile, or raise the bound and say why",
			what, got.Allocs, got.Bytes, bound.Allocs, bound.Bytes)
	}
}
