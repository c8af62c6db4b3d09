package compile_test

import (
	"testing"

	"tollgate/internal/cost"
	"tollgate/xds/compile"
	"tollgate/xds/config"
	"tollgate/xds/release"
)

// TestCost gates what a thousand routes cost to compile and to make a release
// of.
func TestCost(t *testing.T) {
	gw := large(1_000)
	made := func(gw *config.Gateway) {
		objects, _ := compile.Compile(gw, compile.Scope{})
		if _, err := release.New(objects); err != nil {
			t.Fatal(err)
		}
	}
	cost.AtMost(t, "compile of 1,000 routes", cost.Of(3, func() { compile.Compile(gw, compile.Scope{}) }),
		cost.Cost{Allocs: 240_000, Bytes: 20_500_000})
	cost.AtMost(t, "compile and release of 1,000 routes", cost.Of(3, func() { made(gw) }),
		cost.Cost{Allocs: 343_000, Bytes: 29_000_000})
}
