package routes_test

import (
	"errors"
	"fmt"
	"runtime"
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

// TestFormsOfManyParts: listeners in 512 parts wait in 512 forms, whoever waits;
// when others are served in their place, nothing of them is kept.
func TestFormsOfManyParts(t *testing.T) {
	const parts, streams = 512, 5
	var forms routes.Interims
	var before, next []*release.Resource
	for i := range parts {
		before = append(before, config(t, fmt.Sprintf("* * r=a s=b%d", i)))
		next = append(next, config(t, fmt.Sprintf("* * r=n s=b%d", i)))
	}
	ask := func() map[*release.Resource]bool {
		all := map[*release.Resource]bool{}
		for range streams {
			for i := range parts {
				all[forms.Of(before[i], next[i], []string{"n"})] = true
			}
		}
		return all
	}
	made := ask()
	if len(made) != parts {
		t.Fatalf("%d forms", len(made))
	}
	forms.Serve(func(one *release.Resource) bool { return slices.Contains(next, one) })
	for form := range ask() {
		if !made[form] {
			t.Fatal("made again what is served")
		}
	}
	form := forms.Of(before[0], next[0], []string{"n"})
	forms.Serve(func(one *release.Resource) bool { return one == next[1] })
	for one := range ask() {
		if made[one] && lines(t, one)[0] != "* * r=a s=b1" {
			t.Fatalf("kept %v", lines(t, one))
		}
	}
	forms.Serve(func(*release.Resource) bool { return false })
	if got := lines(t, forms.Of(form, config(t, "* * r=n s=c"), []string{"n"})); !slices.Equal(got, []string{"* * r=a s=c"}) {
		t.Fatalf("after a form that is forgotten: %v", got)
	}
}

// TestFormsAreBounded: however many wait for however much, what is kept is not all
// that was ever made; the two configurations at hand are cut once, however large.
func TestFormsAreBounded(t *testing.T) {
	large := func(cluster string) *release.Resource {
		var hosts []string
		for i := range 3_000 {
			hosts = append(hosts, fmt.Sprintf("%[1]d-%[2]s %[1]d.test r=%[3]s", i, strings.Repeat("x", 2_000), cluster))
		}
		return config(t, hosts...)
	}
	var forms routes.Interims
	before, next := large("a"), large("n")
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	start := heap()
	i := 0
	allocs := testing.AllocsPerRun(29, func() {
		i++
		if forms.Of(before, next, []string{"n", fmt.Sprint("other", i)}) == nil {
			t.Fatal("no form")
		}
	})
	if allocs > 25_000 {
		t.Errorf("%v allocations a form: it was cut again", allocs)
	}
	if kept := heap() - start; kept > 64<<20 {
		t.Fatalf("%d MB of 30 forms of %d MB", kept>>20, len(next.Body.GetValue())>>20)
	}
	for range 10 {
		forms.Serve(func(*release.Resource) bool { return false })
		forms.Of(before, next, []string{"n"})
	}
	form := forms.Of(before, next, []string{"n"})
	if forms.Of(before, next, []string{"m", "n"}); forms.Of(before, next, []string{"n"}) != form {
		t.Error("there was room for another form")
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
