package routes_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"tollgate/xds/push/routes"
	"tollgate/xds/release"
)

// host is a virtual host: "name domain,domain route=cluster route=cluster …".
func host(line string) *routev3.VirtualHost {
	words := strings.Fields(line)
	h := &routev3.VirtualHost{Name: words[0], Domains: strings.Split(words[1], ",")}
	for _, word := range words[2:] {
		name, cluster, _ := strings.Cut(word, "=")
		h.Routes = append(h.Routes, &routev3.Route{
			Name: name, Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/" + name}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster}}},
		})
	}
	return h
}

func config(t *testing.T, lines ...string) *release.Resource {
	t.Helper()
	rc := &routev3.RouteConfiguration{Name: "http"}
	for _, line := range lines {
		rc.VirtualHosts = append(rc.VirtualHosts, host(line))
	}
	r, err := release.New([]release.Object{{Audience: release.Edge, Type: release.TypeRoute, Name: "http", Message: rc}})
	if err != nil {
		t.Fatal(err)
	}
	return r.Get(release.Edge, release.TypeRoute, "http")
}

func lines(t *testing.T, one *release.Resource) []string {
	t.Helper()
	if one == nil {
		return nil
	}
	var rc routev3.RouteConfiguration
	if err := one.Body.UnmarshalTo(&rc); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, h := range rc.GetVirtualHosts() {
		line := h.GetName() + " " + strings.Join(h.GetDomains(), ",")
		for _, r := range h.GetRoutes() {
			line += " " + r.GetName() + "=" + r.GetRoute().GetCluster()
		}
		out = append(out, line)
	}
	return out
}

func TestInterim(t *testing.T) {
	for name, c := range map[string]struct{ before, after, want []string }{
		"moved":              {[]string{"* * r=a s=b"}, []string{"* * r=n s=c"}, []string{"* * r=a s=c"}},
		"new":                {[]string{"* * s=b"}, []string{"* * r=n s=b"}, []string{"* * s=b"}},
		"new host":           {[]string{"* * s=b"}, []string{"* * s=b", "x x.test r=n"}, []string{"* * s=b", "x x.test"}},
		"regrouped hosts":    {[]string{"x x.test,y.test r=a s=b"}, []string{"x x.test r=n s=b", "y y.test r=a s=b t=b"}, []string{"x x.test r=a s=b", "y y.test r=a s=b t=b"}},
		"joined hosts":       {[]string{"x x.test r=a", "y y.test r=b"}, []string{"y y.test,x.test r=n"}, []string{"y y.test,x.test r=b"}},
		"one name, many":     {[]string{"* * r=a r=b"}, []string{"* * r=n r=c"}, []string{"* * r=a r=b"}},
		"its old one warms":  {[]string{"* * r=n"}, []string{"* * r=n"}, []string{"* *"}},
		"nothing runs there": {nil, []string{"* * r=n s=b"}, []string{"* * s=b"}},
	} {
		t.Run(name, func(t *testing.T) {
			next := config(t, c.after...)
			var forms routes.Interims
			before := config(t, c.before...)
			got := forms.Of(before, next, []string{"n"})
			if !slices.Equal(lines(t, got), c.want) {
				t.Fatalf("got %v, want %v", lines(t, got), c.want)
			}
			if got.Version == next.Version || !strings.HasPrefix(got.Version, next.Version) {
				t.Fatalf("version %s of %s", got.Version, next.Version)
			}
		})
	}
	var forms routes.Interims
	if got := forms.Of(nil, config(t, "* * r=n"), []string{"n"}); got != nil {
		t.Fatalf("what runs is not known: %v", lines(t, got))
	}
}

// TestFormsAreShared: who waits for the same waits in the same form, made once;
// a form that was sent counts as what it was made of.
func TestFormsAreShared(t *testing.T) {
	var forms routes.Interims
	before, next, after := config(t, "* * r=a s=b"), config(t, "* * r=n s=c"), config(t, "* * r=n s=d")
	form := forms.Of(before, next, []string{"m", "n"})
	for range 1_000 {
		if forms.Of(before, next, []string{"m", "n"}) != form || forms.Of(form, next, []string{"m", "n"}) != form {
			t.Fatal("another form of the same")
		}
	}
	if got := lines(t, forms.Of(form, after, []string{"n"})); !slices.Equal(got, []string{"* * r=a s=d"}) {
		t.Fatalf("after a form: %v", got)
	}
}

// TestFormNames: what a form is made of is among what it names.
func TestFormNames(t *testing.T) {
	var forms routes.Interims
	before, next := config(t, "* * r=a s=b"), config(t, "* * r=n s=c")
	before.Refs, next.Refs = []release.Ref{{Type: "c", Name: "a"}, {Type: "c", Name: "b"}}, []release.Ref{{Type: "c", Name: "b"}, {Type: "c", Name: "n"}}
	if got := forms.Of(before, next, []string{"n"}).Refs; !slices.Equal(got, []release.Ref{{Type: "c", Name: "a"}, {Type: "c", Name: "b"}, {Type: "c", Name: "n"}}) {
		t.Fatalf("names %v", got)
	}
}

// TestEveryWayToACluster: a split and a mirror wait like a plain route; the rest
// of a configuration stays what it is.
func TestEveryWayToACluster(t *testing.T) {
	rc := func(split, mirror string) *release.Resource {
		h := host("* *,x.test r=a s=b")
		h.Routes[0].GetRoute().ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: &routev3.WeightedCluster{
			Clusters: []*routev3.WeightedCluster_ClusterWeight{{Name: "w"}, {Name: split}},
		}}
		h.Routes[1].GetRoute().RequestMirrorPolicies = []*routev3.RouteAction_RequestMirrorPolicy{{Cluster: mirror}}
		h.RequestHeadersToRemove = []string{"x-old"}
		r, err := release.New([]release.Object{{Audience: release.Edge, Type: release.TypeRoute, Name: "http", Message: &routev3.RouteConfiguration{
			Name: "http", VirtualHosts: []*routev3.VirtualHost{h}, InternalOnlyHeaders: []string{"x-in"},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		return r.Get(release.Edge, release.TypeRoute, "http")
	}
	before, split, mirror := rc("o", "o"), rc("n", "o"), rc("o", "n")
	var forms routes.Interims
	for _, next := range []*release.Resource{split, mirror} {
		var got, want routev3.RouteConfiguration
		if err := errors.Join(forms.Of(before, next, []string{"n"}).Body.UnmarshalTo(&got), before.Body.UnmarshalTo(&want)); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(&got, &want) {
			t.Fatalf("got %v, want %v", &got, &want)
		}
	}
	broken := &release.Resource{Version: "x", Body: &anypb.Any{Value: []byte{1}}}
	if forms.Of(before, broken, []string{"n"}) != nil || forms.Of(broken, before, []string{"n"}) != nil {
		t.Fatal("a form of rubbish")
	}
}

// BenchmarkForm is what one route to a new cluster costs among 10,000 routes,
// whoever waits.
func BenchmarkForm(b *testing.B) {
	file := func(first string) *release.Resource {
		rc := &routev3.RouteConfiguration{Name: "http"}
		for i := range 2_000 {
			line := fmt.Sprintf("h%d h%d.test", i, i)
			for j := range 5 {
				line += fmt.Sprintf(" r%d-%d=c%d", i, j, i)
			}
			rc.VirtualHosts = append(rc.VirtualHosts, host(line))
		}
		rc.VirtualHosts[0].Routes[0].GetRoute().ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: first}
		r, err := release.New([]release.Object{{Audience: release.Edge, Type: release.TypeRoute, Name: "http", Message: rc}})
		if err != nil {
			b.Fatal(err)
		}
		return r.Get(release.Edge, release.TypeRoute, "http")
	}
	before, next := file("c0"), file("n")
	b.ReportAllocs()
	for b.Loop() {
		var forms routes.Interims
		forms.Of(before, next, []string{"n"})
	}
}
