package release_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"tollgate/xds/release"
)

func cluster(name string, timeout int64) release.Object {
	return release.Object{
		Audience: release.Edge, Type: release.TypeCluster, Name: name,
		Message: &clusterv3.Cluster{Name: name, ConnectTimeout: &durationpb.Duration{Seconds: timeout}},
	}
}

func TestVersionsAreOfContent(t *testing.T) {
	make := func(objects ...release.Object) *release.Release {
		t.Helper()
		r, err := release.New(objects)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	get := func(r *release.Release, name string) string {
		return r.Get(release.Edge, release.TypeCluster, name).Version
	}
	one, two := make(cluster("a", 1), cluster("b", 1)), make(cluster("b", 1), cluster("a", 2))
	if get(one, "b") != get(two, "b") {
		t.Error("equal content, different versions")
	}
	if get(one, "a") == get(two, "a") || get(one, "a") == get(one, "b") {
		t.Error("different content or name, equal versions")
	}
	if one.Get(release.GRPC, release.TypeCluster, "a") != nil {
		t.Error("a resource leaked to another audience")
	}
	// A version is part of what replicas of different builds agree on.
	if got := get(one, "a"); len(got) != 32 {
		t.Errorf("version %q is not 128 bits of hex", got)
	}
}

func TestAllFaultsAreJoined(t *testing.T) {
	_, err := release.New([]release.Object{cluster("bad-one", -1), cluster("bad-two", -1), cluster("same", 1), cluster("same", 1)})
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{`"bad-one"`, `"bad-two"`, `"same" occurs twice`, "Cluster"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
}

// TestAnyOrder: what is made of equal objects is equal, in whatever order they
// come and on however many cores.
func TestAnyOrder(t *testing.T) {
	var objects []release.Object
	for i := range 200 {
		objects = append(objects, cluster(fmt.Sprint("c", i), int64(i+1)))
	}
	one, err := release.New(objects)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(objects)
	two, err := release.New(objects)
	if err != nil {
		t.Fatal(err)
	}
	names := one.Names(release.Edge, release.TypeCluster)
	if len(names) != 200 || !slices.IsSorted(names) || !slices.Equal(names, two.Names(release.Edge, release.TypeCluster)) {
		t.Fatalf("names %v", names)
	}
	n := 0
	for r := range one.Resources(release.Edge, release.TypeCluster) {
		n++
		if r != one.Get(release.Edge, release.TypeCluster, r.Name) || r.Version != two.Get(release.Edge, release.TypeCluster, r.Name).Version {
			t.Fatalf("%s differs", r.Name)
		}
	}
	if n != 200 {
		t.Fatalf("%d resources", n)
	}
}

func TestHostileObjects(t *testing.T) {
	for name, o := range map[string]release.Object{
		"no content": {Audience: release.Edge, Type: release.TypeCluster, Name: "x"},
		"not UTF-8":  {Audience: release.Edge, Type: release.TypeCluster, Name: "x", Message: &clusterv3.Cluster{Name: "\xff"}},
	} {
		if _, err := release.New([]release.Object{o}); err == nil || !strings.Contains(err.Error(), `Cluster "x": `) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if r, err := release.New(nil); err != nil || len(r.Names(release.Edge, release.TypeCluster)) != 0 {
		t.Errorf("nothing: %v", err)
	}
}

func BenchmarkNew10000Routes(b *testing.B) {
	host := &routev3.VirtualHost{Name: "*", Domains: []string{"*"}}
	for i := range 10_000 {
		host.Routes = append(host.Routes, &routev3.Route{
			Name:   fmt.Sprintf("r%d", i),
			Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: fmt.Sprintf("/r%d", i)}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: "a"}}},
		})
	}
	objects := []release.Object{{
		Audience: release.Edge, Type: release.TypeRoute, Name: "http",
		Message: &routev3.RouteConfiguration{Name: "http", VirtualHosts: []*routev3.VirtualHost{host}},
	}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := release.New(objects); err != nil {
			b.Fatal(err)
		}
	}
}
