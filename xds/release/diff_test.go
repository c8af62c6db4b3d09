package release_test

import (
	"fmt"
	"slices"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"tollgate/xds/release"
)

// TestDiffLeadsThere: whatever two releases are, the difference put on the first
// is the second, and holds nothing that they have in common.
func TestDiffLeadsThere(t *testing.T) {
	object := func(name string, n int) release.Object {
		return release.Object{Audience: release.Edge, Type: release.TypeCluster, Name: name, Message: &clusterv3.Cluster{Name: name, ConnectTimeout: &durationpb.Duration{Seconds: int64(n)}}}
	}
	draw := func(rt *rapid.T) *release.Release {
		var objects []release.Object
		for _, name := range []string{"a", "b", "c", "d"} {
			if n := rapid.IntRange(0, 2).Draw(rt, name); n > 0 {
				objects = append(objects, object(name, n))
			}
		}
		r, err := release.New(objects)
		if err != nil {
			rt.Fatal(err)
		}
		return r
	}
	rapid.Check(t, func(rt *rapid.T) {
		from, to := draw(rt), draw(rt)
		switch rapid.SampledFrom([]string{"made anew", "derived", "from nothing"}).Draw(rt, "how") {
		case "derived":
			var err error
			if to, err = from.With([]release.Object{object("b", 2)}); err != nil {
				rt.Fatal(err)
			}
		case "from nothing":
			from = nil
		}
		have := map[string]string{}
		if from != nil {
			for one := range from.Resources(release.Edge, release.TypeCluster) {
				have[one.Name] = one.Version
			}
		}
		d := release.Diff(from, to, release.Edge, release.TypeCluster)
		for _, one := range d.Changed {
			if have[one.Name] == one.Version {
				rt.Fatalf("%s is in both", one.Name)
			}
			have[one.Name] = one.Version
		}
		for _, name := range d.Gone {
			if have[name] == "" {
				rt.Fatalf("%s was not there", name)
			}
			delete(have, name)
		}
		want := map[string]string{}
		for one := range to.Resources(release.Edge, release.TypeCluster) {
			want[one.Name] = one.Version
		}
		if fmt.Sprint(have) != fmt.Sprint(want) || !slices.IsSorted(d.Gone) {
			rt.Fatalf("leads to %v, want %v", have, want)
		}
	})
}

// BenchmarkDiff is one changed endpoint of 10,000.
func BenchmarkDiff(b *testing.B) {
	var objects []release.Object
	for i := range 10_000 {
		name := fmt.Sprint(i)
		objects = append(objects, release.Object{Audience: release.Edge, Type: release.TypeCluster, Name: name, Message: &clusterv3.Cluster{Name: name}})
	}
	from, err := release.New(objects)
	if err != nil {
		b.Fatal(err)
	}
	to, err := from.With([]release.Object{{Audience: release.Edge, Type: release.TypeCluster, Name: "7", Message: &clusterv3.Cluster{Name: "7", AltStatName: "x"}}})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		release.Diff(from, to, release.Edge, release.TypeCluster)
	}
}
