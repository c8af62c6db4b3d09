//go:build !race

package check_test

import (
	"runtime"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
)

// TestCost: what a check allocates, which unlike its time can be held exactly. A
// bound is what was measured; bytes have a tenth of room for the sizes that other
// versions of the runtime round to. Whoever makes it dearer says so here.
func TestCost(t *testing.T) { //nolint:paralleltest // it counts what the process allocates
	g := newGate(t, discard{})
	bearer := "Bearer " + g.token(t, nil)
	for _, c := range []struct {
		name          string
		request       *authv3.CheckRequest
		allowed       bool
		allocs, bytes uint64
	}{
		{"public", request("public@1", "GET", "/api/orders/7?x=1"), true, 6, 240},
		{"API key", request("orders@1", "GET", "/api/orders/7?x=1", "x-api-key", g.key), true, 9, 376},
		{"cached token, CEL", request("ruled@1", "GET", "/api/orders/7?x=1", "authorization", bearer), true, 11, 1056},
		{"cached token, stream", request("stream@1", "GET", "/api/orders/7?x=1", "authorization", bearer), true, 17, 1208},
		{"no rule holds", request("ruled@1", "POST", "/api/orders/7?x=1", "authorization", bearer), false, 51, 4180},
		{"unknown key", request("orders@1", "GET", "/api/orders/7?x=1", "x-api-key", "guess"), false, 57, 4336},
		{"no credential", request("orders@1", "GET", "/api/orders/7?x=1"), false, 58, 4064},
	} {
		now := time.Now()
		run := func() bool { return g.At(t.Context(), c.request, now).GetOkResponse() != nil }
		for range 100 { // until answers are ready and denials are no longer logged
			if run() != c.allowed {
				t.Fatalf("%s: allowed %v", c.name, !c.allowed)
			}
		}
		allocs, bytes := perRun(func() { run() })
		if allocs > c.allocs || bytes > c.bytes+c.bytes/10 {
			t.Errorf("%s: %d allocations of %d bytes, want at most %d of %d (+10 %%)", c.name, allocs, bytes, c.allocs, c.bytes)
		}
	}
}

// perRun is what one run allocates, as testing.AllocsPerRun counts it.
func perRun(run func()) (allocs, bytes uint64) {
	const runs = 2000
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		run()
	}
	runtime.ReadMemStats(&after)
	return (after.Mallocs - before.Mallocs) / runs, (after.TotalAlloc - before.TotalAlloc) / runs
}
