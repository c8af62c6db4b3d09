package admin_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"tollgate/xds/admin"
	"tollgate/xds/discovery"
	"tollgate/xds/ledger"
)

// asked is what a control plane that serves so answers, decoded again.
func asked(t *testing.T, served *admin.Served) *admin.Status {
	t.Helper()
	at := time.Unix(1_800_000_000, 0)
	cfg := admin.Config{Ledger: ledger.New(func() time.Time { return at }), Registry: discovery.NewRegistry(time.Now), Now: func() time.Time { return at.Add(90 * time.Second) }}
	if served != nil {
		served.Since = at.UTC()
		cfg.Served = func() admin.Served { return *served }
	}
	w := httptest.NewRecorder()
	admin.New(cfg).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/status", nil))
	s, err := admin.DecodeStatus(w.Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return &s
}

func TestFleetTellsWhatIsServedAndWhatIsNot(t *testing.T) {
	of := func(proxy string, lines ...ledger.Line) *admin.Status {
		s := asked(t, nil)
		s.Proxy, s.Nodes = proxy, lines
		return s
	}
	const table = "NODE  TYPE"
	well := &admin.Served{Revision: "0123", Files: []string{"a.yaml", "b.yaml"}}
	held := &admin.Served{Revision: "0123", Files: []string{"a.yaml"}, Held: []admin.HeldFile{{File: "b.yaml", Faults: []string{"b.yaml:3:4: routes[x]: no"}}}}
	whole := &admin.Served{Revision: "0123", Held: []admin.HeldFile{{Faults: []string{"-f x: gone\x1b[2J\u202e"}}}}
	other := &admin.Served{Revision: "4567", Files: []string{"a.yaml", "b.yaml"}}
	faulty := func(served *admin.Served, fault string) *admin.Status {
		s := asked(t, served)
		s.Faults = []string{fault}
		return s
	}
	tests := []struct {
		name   string
		planes []admin.Plane
		says   []string
		unwell string // "": exit 0
	}{
		{"well", []admin.Plane{{Address: "a:1", Status: asked(t, well)}}, []string{"REVISION 0123 since 2027-01-15T08:00:00Z (1m30s), of a.yaml, b.yaml\n" + table}, ""},
		{"held back", []admin.Plane{{Address: "a:1", Status: asked(t, held)}}, []string{"REVISION 0123", "HELD BACK b.yaml; its last good text is served\n  b.yaml:3:4: routes[x]: no\n" + table}, "not what is served"},
		{"the whole set", []admin.Plane{{Address: "a:1", Status: asked(t, whole)}}, []string{"REFUSED the files as they are on disk", "  -f x: gone�[2J�\n"}, "not what is served"},
		{"two that agree", []admin.Plane{{Address: "a:1", Status: asked(t, well)}, {Address: "b:1", Status: asked(t, well)}}, []string{"CONTROL PLANE a:1\nREVISION 0123", "CONTROL PLANE b:1\nREVISION 0123"}, ""},
		{"two apart", []admin.Plane{{Address: "a:1", Status: asked(t, well)}, {Address: "b:1", Status: asked(t, other)}}, []string{"\nAPART b:1: not the revision of the first\n"}, "different revisions: b:1"},
		{"one gone", []admin.Plane{{Address: "a:1", Error: "nobody\x07"}, {Address: "b:1", Status: asked(t, other)}}, []string{"CONTROL PLANE a:1\nUNREACHABLE nobody�\n", "REVISION 4567"}, "a:1: nobody�"},
		{"its proxy came", []admin.Plane{{Address: "a:1", Status: of("edge", ledger.Line{Node: "edge", State: ledger.Synced})}}, []string{table}, ""},
		{"its proxy is away", []admin.Plane{{Address: "a:1", Status: of("edge", ledger.Line{Node: "edge-2", State: ledger.Synced})}}, []string{"edge-2"}, `its own proxy, "edge", is not connected`},
		{"its proxy is gone", []admin.Plane{{Address: "a:1", Status: of("edge", ledger.Line{Node: "edge", State: ledger.Gone})}}, []string{table, "GONE"}, `its own proxy, "edge", is not connected`},
		{"a part with a fault", []admin.Plane{{Address: "a:1", Status: faulty(well, "keys.yaml:2:3: no\x1b[2J")}}, []string{"a.yaml, b.yaml\nFAULT keys.yaml:2:3: no�[2J\n" + table}, "faults to mend"},
		{"a fault that the files show", []admin.Plane{{Address: "a:1", Status: faulty(held, "b.yaml:3:4: routes[x]: no")}}, []string{"routes[x]: no\n" + table}, "not what is served"},
		{"one that says nothing", []admin.Plane{{Address: "a:1", Status: asked(t, nil)}}, []string{table}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			fleet := admin.Fleet{Planes: test.planes}
			var out strings.Builder
			if err := fleet.Render(&out); err != nil {
				t.Fatal(err)
			}
			for _, want := range test.says {
				if !strings.Contains(out.String(), want) {
					t.Errorf("want %q in\n%s", want, out.String())
				}
			}
			if got := fleet.Unwell(); (got == "") != (test.unwell == "") || !strings.Contains(got, test.unwell) {
				t.Errorf("unwell is %q, want %q", got, test.unwell)
			}
			if _, err := json.Marshal(fleet); err != nil {
				t.Error(err)
			}
		})
	}
}
