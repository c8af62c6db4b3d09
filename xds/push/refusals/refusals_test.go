package refusals_test

import (
	"slices"
	"testing"
	"time"

	"tollgate/xds/push/refusals"
	"tollgate/xds/release"
)

func TestMemory(t *testing.T) {
	var m refusals.Memory
	start := time.Unix(1_800_000_000, 0)
	one := &release.Resource{Type: release.TypeRoute, Name: "http", Version: "1"}
	m.Add("edge-1", one, start)
	for name, other := range map[string]*release.Resource{
		"another version": {Type: release.TypeRoute, Name: "http", Version: "2"},
		"another name":    {Type: release.TypeRoute, Name: "https", Version: "1"},
		"another type":    {Type: release.TypeListener, Name: "http", Version: "1"},
	} {
		if m.Has("edge-1", other) {
			t.Error(name)
		}
	}
	if !m.Has("edge-1", one) || m.Has("edge-2", one) {
		t.Fatal("not what was refused by whom")
	}
	connected := map[string]bool{"edge-1": true}
	m.Forget(connected, start.Add(time.Hour)) // ten minutes count from the last sight
	m.Forget(nil, start.Add(time.Hour+9*time.Minute))
	if !m.Has("edge-1", one) {
		t.Fatal("forgotten too early")
	}
	m.Forget(nil, start.Add(time.Hour+11*time.Minute))
	if m.Has("edge-1", one) {
		t.Fatal("never forgotten")
	}
}

func TestDoubt(t *testing.T) {
	var m refusals.Memory
	now := time.Unix(1_800_000_000, 0)
	one, newer := &release.Resource{Type: release.TypeCluster, Name: "a", Version: "1"}, &release.Resource{Type: release.TypeCluster, Name: "a", Version: "2"}
	m.Trust("edge-1", one)
	m.Doubt("edge-1", one, now)
	if got := m.Doubts("edge-1", one.Type); !slices.Equal(got, []string{"a"}) || m.Doubts("edge-2", one.Type) != nil || m.Doubts("edge-1", release.TypeRoute) != nil || m.Has("edge-1", one) {
		t.Fatal("not what is in doubt")
	}
	if m.Trust("edge-1", newer); m.Doubts("edge-1", one.Type) != nil {
		t.Fatal("a version was taken since")
	}
}
