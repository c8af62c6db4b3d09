package refusals_test

import (
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
