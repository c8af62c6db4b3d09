package routes_test

import (
	"slices"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
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
			got := routes.Interim(config(t, c.before...), next, map[string]bool{"n": true})
			if !slices.Equal(lines(t, got), c.want) {
				t.Fatalf("got %v, want %v", lines(t, got), c.want)
			}
			if got.Version == next.Version || !strings.HasPrefix(got.Version, next.Version) {
				t.Fatalf("version %s of %s", got.Version, next.Version)
			}
		})
	}
	if got := routes.Interim(nil, config(t, "* * r=n"), map[string]bool{"n": true}); got != nil {
		t.Fatalf("what runs is not known: %v", lines(t, got))
	}
}

func TestReferences(t *testing.T) {
	authz, err := anypb.New(&authzv3.ExtAuthzPerRoute{Override: &authzv3.ExtAuthzPerRoute_CheckSettings{
		CheckSettings: &authzv3.CheckSettings{ContextExtensions: map[string]string{"policy": "r@1"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	h := host("* * r=a s=b t=a")
	h.Routes[0].TypedPerFilterConfig = map[string]*anypb.Any{"authz": authz}
	h.Routes[1].GetRoute().RequestMirrorPolicies = []*routev3.RouteAction_RequestMirrorPolicy{{Cluster: "m"}}
	h.Routes[2].GetRoute().ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: &routev3.WeightedCluster{
		Clusters: []*routev3.WeightedCluster_ClusterWeight{{Name: "w1"}, {Name: "w2"}},
	}}
	r, err := release.New([]release.Object{{Audience: release.Edge, Type: release.TypeRoute, Name: "http", Message: &routev3.RouteConfiguration{VirtualHosts: []*routev3.VirtualHost{h}}}})
	if err != nil {
		t.Fatal(err)
	}
	var refs routes.References
	for range 2 {
		named := refs.Of(r.Get(release.Edge, release.TypeRoute, "http"))
		if !slices.Equal(named.Clusters, []string{"a", "b", "m", "w1", "w2"}) {
			t.Errorf("clusters %v", named.Clusters)
		}
		for _, want := range []string{routes.Mention(release.Edge, release.TypePolicy, "r@1"), routes.Mention(release.Edge, release.TypeEndpoint, "m")} {
			if !slices.Contains(named.Mentions, want) {
				t.Errorf("%v lacks %s", named.Mentions, want)
			}
		}
	}
	if named := refs.Of(&release.Resource{Version: "x", Body: &anypb.Any{Value: []byte{1}}}); named.Clusters != nil {
		t.Errorf("of rubbish: %v", named)
	}
}
