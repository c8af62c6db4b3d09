package compile

import (
	"cmp"
	"slices"

	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"tollgate/api/contract"
	"tollgate/xds/compile/limiting"
	"tollgate/xds/compile/routing"
	"tollgate/xds/compile/shard"
	"tollgate/xds/compile/upstream"
	"tollgate/xds/config"
	"tollgate/xds/release"
)

// Compile turns a valid gateway into everything that proxies, gRPC clients,
// authorization servers and limiters are sent, sorted by audience, type and
// name; endpoints are package endpoint's. Warnings name what only the reference
// rate-limit server would miss.
func Compile(gw *config.Gateway, scope Scope) (objects []release.Object, warnings []string) {
	b := newBuilder(gw, scope, nil)
	_ = b.edge(func(l *config.Listener, form *shard.Form) error { // which it never has
		b.parted(l, form)
		return nil
	})
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
	memory       *Compiler // nil: nothing is remembered
	upstreams    map[string]*config.Upstream
	made         []*compiled
	sharedClaims []string // of gateway and plans
	routing      *routing.Builder

	objects  []release.Object
	warnings []string
}

// compiled is what a route or an upstream becomes by itself.
type compiled struct {
	objects []release.Object // but for where they come from
	policy  string           // of a route; "" for public ones
	relied  []*config.Edition
	epoch   uint64
}

func newBuilder(gw *config.Gateway, scope Scope, memory *Compiler) *builder {
	b := &builder{
		gw: gw, scope: scope, memory: memory, upstreams: make(map[string]*config.Upstream, len(gw.Upstreams)), made: make([]*compiled, len(gw.Routes)),
		objects: make([]release.Object, 0, 3*len(gw.Upstreams)+2*len(gw.Routes)+16),
	}
	for i := range gw.Upstreams {
		b.upstreams[gw.Upstreams[i].Name] = &gw.Upstreams[i]
	}
	b.sharedClaims = claimsOf(gw.RateLimit)
	for i := range gw.Plans {
		b.sharedClaims = append(b.sharedClaims, claimsOf(gw.Plans[i].RateLimit)...)
	}
	names := make([]string, len(gw.Routes))
	for i, r := range gw.Routes {
		b.made[i] = memory.route(b, r)
		names[i] = b.made[i].policy
	}
	b.routing = routing.New(gw, b.upstreams, names)
	return b
}

// route makes what goes to the servers that decide.
func (b *builder) route(r *config.Route) *compiled {
	out := &compiled{}
	if r.Auth.Mode != config.AuthPublic {
		p := b.policy(r)
		out.policy = p.GetName()
		out.objects = append(out.objects, release.Object{Audience: release.Edge, Type: release.TypePolicy, Name: p.GetName(), Message: p})
	}
	if set := limiting.RouteSet(r); set != nil {
		out.objects = append(out.objects, release.Object{Audience: release.Edge, Type: release.TypeRuleSet, Name: set.GetName(), Message: set})
	}
	return out
}

// upstream makes the cluster of an upstream, and what gRPC clients ask for it.
func (*builder) upstream(u *config.Upstream) *compiled {
	out := &compiled{}
	add := func(audience release.Audience, url string, m proto.Message, refs []release.Ref) {
		out.objects = append(out.objects, release.Object{Audience: audience, Type: url, Name: u.Name, Message: m, Refs: refs})
	}
	add(release.GRPC, release.TypeListener, grpcListener(u), grpcListenerRefs(u))
	if len(u.Split) == 0 {
		add(release.Edge, release.TypeCluster, upstream.Cluster(u), clusterRefs(u))
		add(release.GRPC, release.TypeCluster, grpcCluster(u), assignmentRefs(u))
	}
	return out
}

// place adds what something became, with where it comes from.
func (b *builder) place(c *compiled, pos config.Pos) {
	for _, o := range c.objects {
		o.Pos = pos
		b.objects = append(b.objects, o)
	}
}

// add adds what proxies are sent.
func (b *builder) add(typeURL, name string, m proto.Message, pos config.Pos, refs ...release.Ref) {
	b.objects = append(b.objects, release.Object{Audience: release.Edge, Type: typeURL, Name: name, Message: m, Pos: pos, Refs: refs})
}

// edge adds what faces clients; routes adds those of a listener.
func (b *builder) edge(routes func(l *config.Listener, form *shard.Form) error) error {
	for i := range b.gw.Listeners {
		l := &b.gw.Listeners[i]
		form := b.form(l)
		b.add(release.TypeListener, l.Name, b.listener(l, form), l.Pos, b.listenerRefs(l, form)...)
		if err := routes(l, form); err != nil {
			return err
		}
	}
	for _, s := range secrets(b.gw) {
		b.add(release.TypeSecret, s.message.GetName(), s.message, s.pos)
	}
	// Envoy asks for it first and starts no sooner than it is answered.
	b.add(release.TypeRuntime, contract.RuntimeLayer, &runtimev3.Runtime{Name: contract.RuntimeLayer, Layer: &structpb.Struct{}}, config.Pos{})
	return nil
}

// clusters adds upstreams and our own servers.
func (b *builder) clusters() {
	server := func(name string, hosts []string, trustDomain, role string) {
		b.add(release.TypeCluster, name, upstream.Server(name, hosts, trustDomain, role), config.Pos{})
	}
	server(extAuthzCluster, b.scope.ExtAuthz, b.scope.TrustDomain, contract.RoleExtAuthz)
	server(rateLimitCluster, b.scope.RateLimit, b.scope.TrustDomain, contract.RoleRateLimit)
	if b.gw.Tracing != nil {
		server(otlpCluster, []string{b.gw.Tracing.OTLP}, "", "")
	}
	for i := range b.gw.Upstreams {
		u := &b.gw.Upstreams[i]
		b.place(b.memory.upstream(b, u), u.Pos)
	}
}

// authorization adds what the authorization servers decide by.
func (b *builder) authorization() {
	b.add(release.TypeIdentity, contract.IdentityName, identity(b.gw), config.Pos{})
	for i, r := range b.gw.Routes {
		b.place(b.made[i], r.Pos)
	}
}

// limits adds what limiters count by, but for the limits of single routes.
func (b *builder) limits() {
	pos := map[string]config.Pos{}
	for i := range b.gw.Plans {
		pos[contract.PlanSet(b.gw.Plans[i].Name)] = b.gw.Plans[i].Pos
	}
	for _, set := range limiting.SharedSets(b.gw) {
		b.add(release.TypeRuleSet, set.GetName(), set, pos[set.GetName()])
	}
	reference, warnings := limiting.Reference(b.gw)
	b.add(release.TypeRateLimit, reference.GetName(), reference, config.Pos{})
	b.warnings = append(b.warnings, warnings...)
}
