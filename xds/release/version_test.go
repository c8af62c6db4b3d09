package release_test

import (
	"fmt"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"tollgate/xds/release"
)

// TestVersionsOfMaps: the order in which Go walks a map is in no version, nor in
// the bytes.
func TestVersionsOfMaps(t *testing.T) {
	config := &routev3.RouteConfiguration{Name: "http", TypedPerFilterConfig: map[string]*anypb.Any{}}
	for i := range 20 {
		one, err := anypb.New(wrapperspb.String(fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		config.TypedPerFilterConfig[fmt.Sprint("filter-", i)] = one
	}
	versions := map[string]bool{}
	for range 30 {
		r, err := release.New([]release.Object{{Audience: release.Edge, Type: release.TypeRoute, Name: "http", Message: config}})
		if err != nil {
			t.Fatal(err)
		}
		versions[r.Get(release.Edge, release.TypeRoute, "http").Version] = true
	}
	if len(versions) != 1 {
		t.Fatalf("%d versions of one content", len(versions))
	}
}

// TestVersionsArePinned: a version is what replicas agree on and what a proxy
// brings back: another one for the same content re-sends everything to
// everybody, so it changes only on purpose, with the format's salt.
func TestVersionsArePinned(t *testing.T) {
	r, err := release.New([]release.Object{cluster("a", 1), cluster("b", 1)})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a": "724009edcc0e124ada4215dac9499ab6", "b": "7c8fbab66c0bf3fbc49933120601cdb5"} {
		if got := r.Get(release.Edge, release.TypeCluster, name).Version; got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	// The name counts, also where the content does not hold it.
	same := cluster("a", 1)
	same.Name = "other"
	if r, err = release.New([]release.Object{same}); err != nil {
		t.Fatal(err)
	}
	if r.Get(release.Edge, release.TypeCluster, "other").Version == "724009edcc0e124ada4215dac9499ab6" {
		t.Error("another name, the same version")
	}
}
