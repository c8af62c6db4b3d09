package release_test

import (
	"testing"

	"tollgate/xds/release"
)

// TestWith: what is put in is there, all else is the very same, and the release
// that it was made from is as it was.
func TestWith(t *testing.T) {
	get := func(r *release.Release, name string) *release.Resource {
		return r.Get(release.Edge, release.TypeCluster, name)
	}
	listener := release.Object{Audience: release.Edge, Type: release.TypeListener, Name: "l", Message: cluster("l", 1).Message}
	base, err := release.New([]release.Object{cluster("a", 1), cluster("b", 1), listener})
	if err != nil {
		t.Fatal(err)
	}
	base = base.Of("revision")
	next, err := base.With([]release.Object{cluster("b", 2), cluster("c", 1)})
	if err != nil {
		t.Fatal(err)
	}
	if get(next, "a") != get(base, "a") || get(next, "b") == get(base, "b") || get(next, "c") == nil || get(base, "c") != nil || next.Revision != "revision" {
		t.Error("not the change that was asked for")
	}
	if next.Shares(base, release.Edge, release.TypeCluster) || !next.Shares(base, release.Edge, release.TypeListener) {
		t.Error("says that the wrong type changed")
	}
	same, err := base.With([]release.Object{cluster("b", 1)})
	if err != nil {
		t.Fatal(err)
	}
	if !same.Shares(base, release.Edge, release.TypeCluster) || get(same, "b") != get(base, "b") {
		t.Error("the same content was put in the place of itself")
	}
	first, err := base.With([]release.Object{{Audience: release.GRPC, Type: release.TypeCluster, Name: "g", Message: cluster("g", 1).Message}})
	if err != nil || first.Get(release.GRPC, release.TypeCluster, "g") == nil || base.Shares(first, release.GRPC, release.TypeCluster) {
		t.Errorf("the first of its kind: %v", err)
	}
	if _, err := base.With([]release.Object{cluster("a", -1)}); err == nil {
		t.Error("took what breaks a constraint")
	}
}
