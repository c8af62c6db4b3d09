package warming_test

import (
	"slices"
	"testing"
	"time"

	"tollgate/xds/push/warming"
	"tollgate/xds/release"
)

func TestClusters(t *testing.T) {
	const hold = 2 * time.Second
	now := time.Unix(1_800_000_000, 0)
	route := &release.Resource{Refs: []release.Ref{
		{Type: release.TypeCluster, Name: "b"}, {Type: release.TypePolicy, Name: "c"}, {Type: release.TypeCluster, Name: "a"}, {Type: release.TypeCluster, Name: "x"},
	}}
	var c warming.Clusters
	if _, any := c.Due(hold); any || c.Of(route) != nil || c.Ended() {
		t.Fatal("something is waited for")
	}
	c.Sent("a", now)
	c.Sent("b", now.Add(time.Second))
	c.Sent("c", now.Add(time.Second))
	if got := c.Of(route); !slices.Equal(got, []string{"a", "b"}) {
		t.Fatalf("waits for %v", got)
	}
	if due, any := c.Due(hold); !any || !due.Equal(now.Add(hold)) {
		t.Fatalf("due %s", due)
	}
	c.Expire(hold, now.Add(hold-1))
	if c.Ended() {
		t.Fatal("ended early")
	}
	c.Expire(hold, now.Add(hold))
	if got := c.Of(route); !slices.Equal(got, []string{"b"}) || !c.Ended() || c.Ended() {
		t.Fatalf("waits for %v", got)
	}
	if due, _ := c.Due(hold); !due.Equal(now.Add(hold + time.Second)) {
		t.Fatalf("due %s", due)
	}
	c.End("nobody")
	if c.Ended() {
		t.Fatal("nothing ended")
	}
	c.End("b")
	c.End("c")
	if _, any := c.Due(hold); any || !c.Ended() {
		t.Fatal("something is waited for")
	}
}
