package compile_test

import (
	"slices"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"tollgate/xds/config"
	"tollgate/xds/release"
)

// TestRefs holds what is said of an object against what a reader finds who knows
// nothing of how it was made: every name that stands anywhere in its content.
func TestRefs(t *testing.T) {
	p := newPEMs(t)
	kinds := map[string]int{}
	mirrored := parse(t, p, "mirror", []byte(`
version: 1
listeners: [{name: http, address: 127.0.0.1:8080}]
upstreams: [{name: a, endpoints: [127.0.0.1:1]}, {name: b, endpoints: [127.0.0.1:2]}]
routes: [{name: r, match: {path: {prefix: /}}, auth: public, upstream: a, mirror: {upstream: b}}]
`))
	gateways := map[string]*config.Gateway{"mirror": mirrored}
	for _, path := range cases(t) {
		gateways[path] = parseFile(t, p, path)
	}
	for path, gw := range gateways {
		objects, _ := everything(gw, scope(), instances())
		for _, o := range objects {
			var found []release.Ref
			look(t, o.Message, &found)
			found = slices.DeleteFunc(found, func(r release.Ref) bool { return !served(o.Type, r.Type) })
			want := unique(found)
			if o.Type == release.TypeRoute {
				if !slices.Equal(o.Refs, want) {
					t.Errorf("%s: %s %q names %v, says %v", path, o.Type, o.Name, want, o.Refs)
				}
			} else if !slices.Equal(sorted(o.Refs), sorted(want)) {
				t.Errorf("%s: %s %s %q names %v, says %v", path, o.Audience, o.Type, o.Name, want, o.Refs)
			}
			for _, r := range o.Refs {
				kinds[r.Type]++
				if !slices.ContainsFunc(objects, func(x release.Object) bool {
					return x.Audience == o.Audience && x.Type == r.Type && x.Name == r.Name
				}) {
					t.Errorf("%s: %s %q names %v, which is not there", path, o.Type, o.Name, r)
				}
			}
		}
	}
	for _, url := range []string{release.TypeCluster, release.TypePolicy, release.TypeRuleSet, release.TypeSecret, release.TypeEndpoint, release.TypeRoute} {
		if kinds[url] == 0 {
			t.Errorf("no case names a %s", url)
		}
	}
}

// served says which names of a type of object count: a cluster is named by its
// own name within itself.
func served(of, named string) bool {
	return of != release.TypeCluster && of != release.TypeEndpoint || named == release.TypeEndpoint || named == release.TypeSecret
}

func unique(refs []release.Ref) []release.Ref {
	var out []release.Ref
	for _, r := range refs {
		if !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	return out
}

func sorted(refs []release.Ref) []release.Ref {
	return slices.SortedFunc(slices.Values(refs), func(a, b release.Ref) int { return strings.Compare(a.Type+a.Name, b.Type+b.Name) })
}

// look finds names by the fields that hold them, in every message within m.
func look(t *testing.T, m proto.Message, into *[]release.Ref) {
	t.Helper()
	add := func(url, name string) {
		if name != "" {
			*into = append(*into, release.Ref{Type: url, Name: name})
		}
	}
	switch m := m.(type) {
	case *anypb.Any:
		inner, err := m.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		look(t, inner, into)
		return
	case *routev3.Route:
		lookRoute(t, m, add)
		return
	}
	m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch name := string(f.FullName()); {
		case name == "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig.name" && !strings.HasPrefix(v.String(), "tollgate"):
			add(release.TypeSecret, v.String())
		case name == "envoy.config.core.v3.GrpcService.EnvoyGrpc.cluster_name":
			add(release.TypeCluster, v.String())
		case name == "envoy.extensions.filters.network.http_connection_manager.v3.Rds.route_config_name":
			add(release.TypeRoute, v.String())
		case name == "envoy.config.cluster.v3.Cluster.eds_cluster_config":
			add(release.TypeEndpoint, m.ProtoReflect().Get(m.ProtoReflect().Descriptor().Fields().ByName("name")).String())
		}
		each(f, v, func(inner proto.Message) { look(t, inner, into) })
		return true
	})
}

func each(f protoreflect.FieldDescriptor, v protoreflect.Value, do func(proto.Message)) {
	switch {
	case f.IsMap():
		if f.MapValue().Message() != nil {
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { do(v.Message().Interface()); return true })
		}
	case f.Message() == nil:
	case f.IsList():
		for i := range v.List().Len() {
			do(v.List().Get(i).Message().Interface())
		}
	default:
		do(v.Message().Interface())
	}
}

func lookRoute(t *testing.T, route *routev3.Route, add func(url, name string)) {
	t.Helper()
	action := route.GetRoute()
	add(release.TypeCluster, action.GetCluster())
	for _, c := range action.GetWeightedClusters().GetClusters() {
		add(release.TypeCluster, c.GetName())
	}
	for _, m := range action.GetRequestMirrorPolicies() {
		add(release.TypeCluster, m.GetCluster())
	}
	var policy, owner string
	for _, config := range route.GetTypedPerFilterConfig() {
		inner, err := config.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		switch inner := inner.(type) {
		case *authzv3.ExtAuthzPerRoute:
			policy = inner.GetCheckSettings().GetContextExtensions()["policy"]
		case *ratelimitv3.RateLimitPerRoute:
			for _, limit := range inner.GetRateLimits() {
				slot := limit.GetActions()[0].GetGenericKey().GetDescriptorValue()
				if cut := strings.LastIndexByte(slot, '/'); strings.HasPrefix(slot, "route/") {
					owner = slot[:cut]
				}
			}
		}
	}
	add(release.TypePolicy, policy)
	add(release.TypeRuleSet, owner)
}
