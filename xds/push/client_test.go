package push_test

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	authzv1 "tollgate/api/authz/v1"
	"tollgate/xds/ledger"
	"tollgate/xds/push"
	"tollgate/xds/release"
)

// quiet is how long nothing must come for a client to be idle.
const quiet = 60 * time.Millisecond

type server struct {
	*push.Server
	book *ledger.Ledger
	conn *grpc.ClientConn
}

func start(t testing.TB, cfg push.Config, watch ...stats.Handler) *server {
	t.Helper()
	s := &server{book: ledger.New(time.Now)}
	cfg.Log, cfg.Ledger = slog.New(slog.DiscardHandler), s.book
	if cfg.Admit == nil {
		cfg.Admit = byNode
	}
	var err error
	if s.Server, err = push.New(cfg); err != nil {
		t.Fatal(err)
	}
	lis := bufconn.Listen(1 << 20)
	options := push.ServerOptions()
	for _, w := range watch {
		options = append(options, grpc.StatsHandler(w))
	}
	g := grpc.NewServer(options...)
	s.Register(g)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{}, 2)
	go func() { _ = s.Run(ctx); ended <- struct{}{} }()
	go func() { _ = g.Serve(lis); ended <- struct{}{} }()
	s.conn, err = grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.conn.Close(); g.Stop(); cancel(); <-ended; <-ended })
	return s
}

// client is a scripted proxy.
type client struct {
	t      testing.TB
	stream grpc.BidiStreamingClient[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]
	in     chan *discoveryv3.DeltaDiscoveryResponse
	leave  context.CancelFunc
}

func (s *server) connect(t testing.TB, id string) *client {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(s.conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, stream: stream, in: make(chan *discoveryv3.DeltaDiscoveryResponse, 10000), leave: cancel}
	go func() {
		defer close(c.in)
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			c.in <- r
		}
	}()
	t.Cleanup(cancel)
	c.send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: id, Cluster: "edge"}, TypeUrl: release.TypeRuntime, ResourceNamesSubscribe: []string{"rt"}})
	return c
}

func (c *client) send(r *discoveryv3.DeltaDiscoveryRequest) {
	c.t.Helper()
	if err := c.stream.Send(r); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) subscribe(url string, names ...string) {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: url, ResourceNamesSubscribe: names})
}

func (c *client) resume(url string, held map[string]string, names ...string) {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: url, ResourceNamesSubscribe: names, InitialResourceVersions: held})
}

func (c *client) ack(r *discoveryv3.DeltaDiscoveryResponse) {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()})
}

func (c *client) nack(r *discoveryv3.DeltaDiscoveryResponse, why string) {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce(), ErrorDetail: &status.Status{Code: 13, Message: why}})
}

// next is the next response, of this type.
func (c *client) next(url string) *discoveryv3.DeltaDiscoveryResponse {
	c.t.Helper()
	select {
	case r := <-c.in:
		if r.GetTypeUrl() != url {
			c.t.Fatalf("got %s %v, want %s", r.GetTypeUrl(), names(r), url)
		}
		return r
	case <-time.After(5 * time.Second):
		c.t.Fatalf("no %s came", url)
		return nil
	}
}

func (c *client) take(url string, want ...string) *discoveryv3.DeltaDiscoveryResponse {
	c.t.Helper()
	r := c.next(url)
	if !slices.Equal(names(r), want) {
		c.t.Fatalf("%s: got %v, want %v", url, names(r), want)
	}
	c.ack(r)
	return r
}

func (c *client) silence() {
	c.t.Helper()
	select {
	case r := <-c.in:
		c.t.Fatalf("unexpected %s %v removed %v", r.GetTypeUrl(), names(r), r.GetRemovedResources())
	case <-time.After(quiet):
	}
}

func names(r *discoveryv3.DeltaDiscoveryResponse) []string {
	var out []string
	for _, one := range r.GetResources() {
		out = append(out, one.GetName())
	}
	return out
}

// targets are the routes of a response with the cluster each goes to.
func targets(t testing.TB, r *discoveryv3.DeltaDiscoveryResponse) map[string]string {
	t.Helper()
	var rc routev3.RouteConfiguration
	if err := r.GetResources()[0].GetResource().UnmarshalTo(&rc); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, route := range rc.GetVirtualHosts()[0].GetRoutes() {
		out[route.GetName()] = route.GetRoute().GetCluster()
	}
	return out
}

func nodeOf(id string) *corev3.Node { return &corev3.Node{Id: id, Cluster: "edge"} }

func edge(url, name string, m proto.Message) release.Object {
	return release.Object{Audience: release.Edge, Type: url, Name: name, Message: m}
}

// cluster is a cluster with its endpoints; n tells its versions apart.
func cluster(name string, n int) []release.Object {
	return []release.Object{
		edge(release.TypeCluster, name, &clusterv3.Cluster{Name: name, ConnectTimeout: durationpb.New(time.Duration(n) * time.Second)}),
		edge(release.TypeEndpoint, name, &endpointv3.ClusterLoadAssignment{ClusterName: name}),
	}
}

func listener(name string) release.Object {
	return edge(release.TypeListener, name, &listenerv3.Listener{Name: name})
}

// routes are pairs of route and cluster.
func routes(pairs ...string) release.Object {
	host := &routev3.VirtualHost{Name: "*", Domains: []string{"*"}}
	for i := 0; i < len(pairs); i += 2 {
		host.Routes = append(host.Routes, &routev3.Route{
			Name:  pairs[i],
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/" + pairs[i]}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: pairs[i+1]},
			}},
		})
	}
	rc := edge(release.TypeRoute, "http", &routev3.RouteConfiguration{Name: "http", VirtualHosts: []*routev3.VirtualHost{host}})
	for i := 1; i < len(pairs); i += 2 {
		rc.Refs = append(rc.Refs, release.Ref{Type: release.TypeCluster, Name: pairs[i]})
	}
	return rc
}

func policy(name string) release.Object {
	return edge(release.TypePolicy, name, &authzv1.Policy{})
}

func made(t testing.TB, objects ...[]release.Object) *release.Release {
	t.Helper()
	r, err := release.New(slices.Concat(objects...))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func of(objects ...release.Object) []release.Object { return objects }

// byNode takes a node id for authenticated.
func byNode(_ context.Context, node *corev3.Node) (push.Client, error) {
	return push.Client{Identity: node.GetId()}, nil
}
