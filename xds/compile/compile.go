package compile

import (
	"cmp"
	"slices"

	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	authzv1 "tollgate/api/authz/v1"
	"tollgate/api/contract"
	"tollgate/xds/compile/limiting"
	"tollgate/xds/compile/routing"
	"tollgate/xds/compile/upstream"
	"tollgate/xds/config"
	"tollgate/xds/release"
)

// Compile turns a valid gateway into everything that proxies, gRPC clients,
// authorization servers and limiters are sent, sorted by audience, type and
// name; endpoints are package endpoint's. Warnings name what only the reference rate-limit server would miss.
func Compile(gw *config.Gateway, scope Scope) (objects []release.Object, warnings []string) {
	b := newBuilder(gw, scope)
	b.edge()
	b.clusters()
	b.authorization()
	b.limits()
	slices.SortStableFunc(b.objects, func(x, y release.Object) int {
		return cmp.Or(cmp.Compare(x.Audience, y.Audience), cmp.Compare(x.Type, y.Type), cmp.Compare(x.Name, y.Name))
	})
	return b.objects, b.warnings
}

// builder holds what the parts of one compilation share.
type builder struct {
	gw           *config.Gateway
	scope        Scope
	upstreams    map[string]*config.Upstream
	policies     []*authzv1.Policy // by route; nil for public ones
	sharedClaims []string          // of gateway and plans
	routing      *routing.Builder

	objects  []release.Object
	warnings []string
}

func newBuilder(gw *config.Gateway, scope Scope) *builder {
	b := &builder{
		gw: gw, scope: scope, upstreams: make(map[string]*config.Upstream, len(gw.Upstreams)), policies: make([]*authzv1.Policy, len(gw.Routes)),
	}
	for i := range gw.Upstreams {
		b.upstreams[gw.Upstreams[i].Name] = &gw.Upstreams[i]
	}
	b.sharedClaims = claimsOf(gw.RateLimit)
	for i := range gw.Plans {
		b.sharedClaims = append(b.sharedClaims, claimsOf(gw.Plans[i].RateLimit)...)
	}
	names := make([]string, len(gw.Routes))
	for i := range gw.Routes {
		if gw.Routes[i].Auth.Mode != config.AuthPublic {
			b.policies[i] = b.policy(gw.Routes[i])
			names[i] = b.policies[i].GetName()
		}
	}
	b.routing = routing.New(gw, b.upstreams, names)
	return b
}

func (b *builder) add(audience release.Audience, typeURL, name string, m proto.Message, pos config.Pos, refs ...release.Ref) {
	b.objects = append(b.objects, release.Object{Audience: audience, Type: typeURL, Name: name, Message: m, Pos: pos, Refs: refs})
}

// edge adds what faces clients.
func (b *builder) edge() {
	for i := range b.gw.Listeners {
		l := &b.gw.Listeners[i]
		table := b.routing.Table(l, b.httpsPort())
		form := b.form(l)
		b.add(release.Edge, release.TypeListener, l.Name, b.listener(l, form), l.Pos, b.listenerRefs(l, form)...)
		b.routes(l, table, form)
	}
	for _, s := range secrets(b.gw) {
		b.add(release.Edge, release.TypeSecret, s.message.GetName(), s.message, s.pos)
	}
	// Envoy asks for it first and starts no sooner than it is answered.
	b.add(release.Edge, release.TypeRuntime, contract.RuntimeLayer, &runtimev3.Runtime{Name: contract.RuntimeLayer, Layer: &structpb.Struct{}}, config.Pos{})
}

// clusters adds upstreams and our own servers.
func (b *builder) clusters() {
	server := func(name string, hosts []string, trustDomain, role string) {
		b.add(release.Edge, release.TypeCluster, name, upstream.Server(name, hosts, trustDomain, role), config.Pos{})
	}
	server(extAuthzCluster, b.scope.ExtAuthz, b.scope.TrustDomain, contract.RoleExtAuthz)
	server(rateLimitCluster, b.scope.RateLimit, b.scope.TrustDomain, contract.RoleRateLimit)
	if b.gw.Tracing != nil {
		server(otlpCluster, []string{b.gw.Tracing.OTLP}, "", "")
	}
	for i := range b.gw.Upstreams {
		u := &b.gw.Upstreams[i]
		b.add(release.GRPC, release.TypeListener, u.Name, grpcListener(u), u.Pos, grpcListenerRefs(u)...)
		if len(u.Split) > 0 {
			continue
		}
		b.add(release.Edge, release.TypeCluster, u.Name, upstream.Cluster(u), u.Pos, clusterRefs(u)...)
		b.add(release.GRPC, release.TypeCluster, u.Name, grpcCluster(u), u.Pos, assignmentRefs(u)...)
	}
}

// authorization adds what the authorization servers decide by.
func (b *builder) authorization() {
	b.add(release.Edge, release.TypeIdentity, contract.IdentityName, identity(b.gw), config.Pos{})
	for i, p := range b.policies {
		if p != nil {
			b.add(release.Edge, release.TypePolicy, p.GetName(), p, b.gw.Routes[i].Pos)
		}
	}
}

// limits adds what limiters count by.
func (b *builder) limits() {
	pos := map[string]config.Pos{}
	for i := range b.gw.Plans {
		pos["plan/"+b.gw.Plans[i].Name] = b.gw.Plans[i].Pos
	}
	for i := range b.gw.Routes {
		pos["route/"+b.gw.Routes[i].Name] = b.gw.Routes[i].Pos
	}
	for _, set := range limiting.RuleSets(b.gw) {
		b.add(release.Edge, release.TypeRuleSet, set.GetName(), set, pos[set.GetName()])
	}
	reference, warnings := limiting.Reference(b.gw)
	b.add(release.Edge, release.TypeRateLimit, reference.GetName(), reference, config.Pos{})
	b.warnings = append(b.warnings, warnings...)
}
