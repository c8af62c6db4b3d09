package endpoint_test

import (
	"fmt"
	"net/netip"
	"testing"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"tollgate/xds/config"
	"tollgate/xds/discovery"
	"tollgate/xds/endpoint"
	"tollgate/xds/release"
)

func at(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
}

func upstreams() []config.Upstream {
	return []config.Upstream{
		{Name: "a", Registry: "one"},
		{Name: "b", Registry: "one", Endpoints: []config.Endpoint{{Address: at(9), Weight: 1}}},
		{Name: "c", Registry: "two"},
		{Name: "d", Endpoints: []config.Endpoint{{Address: at(8), Weight: 1}}},
		{Name: "named", DNS: "x.test:1"},
		{Name: "split", Split: []config.SplitMember{{Upstream: "a", Weight: 1}}},
	}
}

// lines show who is where, audience by audience.
func lines(objects []release.Object) string {
	out := ""
	for _, o := range objects {
		out += string(o.Audience) + " " + o.Name
		for _, locality := range o.Message.(*endpointv3.ClusterLoadAssignment).GetEndpoints() {
			for _, e := range locality.GetLbEndpoints() {
				out += fmt.Sprintf(" %d", e.GetEndpoint().GetAddress().GetSocketAddress().GetPortValue())
			}
		}
		out += "\n"
	}
	return out
}

func TestObjects(t *testing.T) {
	now := endpoint.Instances{"one": {{ID: "x", Address: at(1), Weight: 1}}, "nobody's": {{ID: "y", Address: at(2), Weight: 1}}, "two": {}}
	want := "edge a 1\nedge b 1 9\nedge c\nedge d 8\ngrpc a 1\ngrpc b 1 9\ngrpc c\ngrpc d 8\n"
	if got := lines(endpoint.Objects(upstreams(), now)); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestChanged: what changed is what the whole would have different, and no more.
func TestChanged(t *testing.T) {
	one := discovery.Instance{ID: "x", Address: at(1), Weight: 1}
	leaving := one
	leaving.Draining = true
	for name, c := range map[string]struct {
		before, now endpoint.Instances
		want        string
	}{
		"nothing":         {endpoint.Instances{"one": {one}}, endpoint.Instances{"one": {one}}, ""},
		"first":           {nil, endpoint.Instances{"one": {one}}, "edge a 1\nedge b 1 9\ngrpc a 1\ngrpc b 1 9\n"},
		"last":            {endpoint.Instances{"two": {one}}, endpoint.Instances{"two": {}}, "edge c\ngrpc c\n"},
		"leaves":          {endpoint.Instances{"two": {one}}, endpoint.Instances{"two": {leaving}}, "edge c 1\ngrpc c 1\n"},
		"nobody's":        {nil, endpoint.Instances{"nobody's": {one}}, ""},
		"of no service":   {nil, endpoint.Instances{"": {one}}, ""},
		"none where none": {endpoint.Instances{"one": {}}, endpoint.Instances{"one": {}}, ""},
	} {
		if got := lines(endpoint.Changed(upstreams(), c.before, c.now)); got != c.want {
			t.Errorf("%s: got\n%swant\n%s", name, got, c.want)
		}
		before, err := release.New(endpoint.Objects(upstreams(), c.before))
		if err != nil {
			t.Fatal(err)
		}
		whole, err := release.New(endpoint.Objects(upstreams(), c.now))
		if err != nil {
			t.Fatal(err)
		}
		with, err := before.With(endpoint.Changed(upstreams(), c.before, c.now))
		if err != nil {
			t.Fatal(err)
		}
		for _, audience := range []release.Audience{release.Edge, release.GRPC} {
			for _, u := range whole.Names(audience, release.TypeEndpoint) {
				if a, b := whole.Get(audience, release.TypeEndpoint, u), with.Get(audience, release.TypeEndpoint, u); b == nil || a.Version != b.Version {
					t.Errorf("%s: %s differs from the whole", name, u)
				}
			}
		}
	}
}

// TestUnheard: of a service that was never heard of proxies are told nothing,
// and something with its first instance and after its last.
func TestUnheard(t *testing.T) {
	unheard, first, left := endpoint.Instances{}, endpoint.Instances{"two": {{ID: "x", Address: at(1), Weight: 1}}}, endpoint.Instances{"two": {}}
	if got, want := lines(endpoint.Objects(upstreams(), unheard)), "edge b 9\nedge d 8\ngrpc a\ngrpc b 9\ngrpc c\ngrpc d 8\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got, want := lines(endpoint.Changed(upstreams(), unheard, first)), "edge c 1\ngrpc c 1\n"; got != want {
		t.Errorf("first: got\n%swant\n%s", got, want)
	}
	if got, want := lines(endpoint.Changed(upstreams(), first, left)), "edge c\ngrpc c\n"; got != want {
		t.Errorf("last: got\n%swant\n%s", got, want)
	}
}

// TestLane: whatever came before, a lane gives what Objects gives, and the same
// resources for what is the same.
func TestLane(t *testing.T) {
	var lane endpoint.Lane
	known := upstreams()
	for i := range known {
		known[i].Edition = &config.Edition{}
	}
	one := discovery.Instance{ID: "x", Address: at(1), Weight: 1}
	before := &release.Release{}
	for step, c := range []struct {
		now  endpoint.Instances
		edit string
		same int
	}{
		{nil, "", 0},
		{nil, "", 8},
		{endpoint.Instances{"one": {one}, "two": {}}, "", 4},
		{endpoint.Instances{"one": {one}, "two": {}, "": {one}}, "", 8},
		{endpoint.Instances{"one": {one}, "two": {}}, "d", 6},
		{endpoint.Instances{"one": {}, "two": {one}}, "", 2},
		{endpoint.Instances{"one": {}}, "", 6},
		{endpoint.Instances{"one": {}, "two": {}}, "", 7},
		{nil, "", 8},
		{nil, "move", 0},
	} {
		edited := append([]config.Upstream(nil), known...)
		for i := range edited {
			if c.edit == "move" {
				edited[i].Pos.Line++
			}
			if edited[i].Name == c.edit {
				edited[i].Edition, edited[i].Endpoints = &config.Edition{}, []config.Endpoint{{Address: at(5), Weight: 1}}
			}
		}
		known = edited
		want, err := release.New(endpoint.Objects(known, c.now))
		if err != nil {
			t.Fatal(err)
		}
		got, err := before.Next(lane.Objects(known, c.now))
		if err != nil {
			t.Fatal(err)
		}
		same := 0
		for _, audience := range []release.Audience{release.Edge, release.GRPC} {
			for _, name := range want.Names(audience, release.TypeEndpoint) {
				a, b := want.Get(audience, release.TypeEndpoint, name), got.Get(audience, release.TypeEndpoint, name)
				if b == nil || len(got.Names(audience, release.TypeEndpoint)) != len(want.Names(audience, release.TypeEndpoint)) || a.Version != b.Version || a.Pos != b.Pos {
					t.Errorf("step %d: %s differs", step, name)
				}
				if b == before.Get(audience, release.TypeEndpoint, name) {
					same++
				}
			}
		}
		if same != c.same {
			t.Errorf("step %d: %d are the same, want %d", step, same, c.same)
		}
		before = got
	}
}
