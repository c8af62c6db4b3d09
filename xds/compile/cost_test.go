package compile_test

import (
	"testing"

	"tollgate/internal/cost"
	"tollgate/xds/compile"
	"tollgate/xds/config"
	"tollgate/xds/release"
)

// TestCost gates what a thousand routes cost to compile and to make a release
// of. Of it, 20 allocations for each of the 512 parts are for a route
// configuration and a scope: an edit is cheap for every proxy, and so dearer here.
func TestCost(t *testing.T) {
	gw := large(1_000)
	made := func(gw *config.Gateway) {
		objects, _ := compile.Compile(gw, compile.Scope{})
		if _, err := release.New(objects); err != nil {
			t.Fatal(err)
		}
	}
	cost.AtMost(t, "compile of 1,000 routes", cost.Of(3, func() { compile.Compile(gw, compile.Scope{}) }),
		cost.Cost{Allocs: 255_000, Bytes: 22_500_000})
	cost.AtMost(t, "compile and release of 1,000 routes", cost.Of(3, func() { made(gw) }),
		cost.Cost{Allocs: 370_000, Bytes: 32_500_000})
}
