package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	limitservicev3 "github.com/envoyproxy/go-control-plane/envoy/config/ratelimit/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	authzfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	limitfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"tollgate/e2e/harness"
)

// empty admits whoever asks, at the least cost that grpc-go allows: the floor
// under any pair of servers behind Envoy's two filters.
type empty struct {
	authv3.UnimplementedAuthorizationServer
	rlsv3.UnimplementedRateLimitServiceServer
}

func (empty) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return &authv3.CheckResponse{Status: &status.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}}}, nil
}

func (empty) ShouldRateLimit(context.Context, *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	return &rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OK}, nil
}

// serveEmpty is this program as the two empty services, a process of its own so
// that its CPU can be told from the load's.
func serveEmpty(ctx context.Context, address string) error {
	var binder net.ListenConfig
	listener, err := binder.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	authv3.RegisterAuthorizationServer(server, empty{})
	rlsv3.RegisterRateLimitServiceServer(server, empty{})
	return server.Serve(listener)
}

// startEmpty starts the empty services and returns their address and pid.
func (b *bed) startEmpty() (address string, pid int) {
	self, err := os.Executable()
	if err != nil {
		b.Fatalf("%v", err)
	}
	address = harness.FreeAddress(b)
	p := harness.Start(b, harness.Command{Name: "empty services", Path: self, Args: []string{"-serve-empty", address}})
	harness.AwaitListening(b, address)
	return address, p.PID()
}

// proxy starts an Envoy that has everything in its bootstrap.
func (b *bed) proxy(name, listen string, bootstrap *bootstrapv3.Bootstrap) int {
	data, err := protojson.Marshal(bootstrap)
	if err != nil {
		b.Fatalf("%s: %v", name, err)
	}
	file := filepath.Join(harness.TempDir(b), "envoy.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		b.Fatalf("%s: %v", name, err)
	}
	p := harness.Start(b, harness.Command{Name: name, Path: harness.EnvoyPath(b), Args: []string{
		"--config-path", file, "--use-dynamic-base-id", "--log-level", "warning", "--component-log-level", "filter:critical", "--concurrency", "1",
	}})
	harness.AwaitListening(b, listen)
	return p.PID()
}

// bare is an Envoy with TLS, one route and nothing else that can be left out;
// with the address of two services it also asks both.
func bare(listen, upstream, services, cert, key string) *bootstrapv3.Bootstrap {
	var filters []*hcmv3.HttpFilter
	clusters := []*clusterv3.Cluster{cluster("up", upstream, false)}
	route := &routev3.Route{
		Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: "up"}}},
	}
	if services != "" {
		call := &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: "services"}}}
		clusters = append(clusters, cluster("services", services, true))
		filters = append(filters,
			filter("envoy.filters.http.ext_authz", &authzfilterv3.ExtAuthz{
				TransportApiVersion: corev3.ApiVersion_V3, Services: &authzfilterv3.ExtAuthz_GrpcService{GrpcService: call},
			}),
			filter("envoy.filters.http.ratelimit", &limitfilterv3.RateLimit{
				Domain: "d", Timeout: durationpb.New(time.Second), RateLimitService: &limitservicev3.RateLimitServiceConfig{TransportApiVersion: corev3.ApiVersion_V3, GrpcService: call},
			}))
		route.GetRoute().RateLimits = []*routev3.RateLimit{{Actions: []*routev3.RateLimit_Action{{
			ActionSpecifier: &routev3.RateLimit_Action_RemoteAddress_{RemoteAddress: &routev3.RateLimit_Action_RemoteAddress{}},
		}}}}
	}
	manager := &hcmv3.HttpConnectionManager{
		StatPrefix: "bare", HttpFilters: append(filters, filter("envoy.filters.http.router", &routerv3.Router{})),
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
			VirtualHosts: []*routev3.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []*routev3.Route{route}}},
		}},
	}
	text := func(s string) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: s}}
	}
	return &bootstrapv3.Bootstrap{StaticResources: &bootstrapv3.Bootstrap_StaticResources{
		Clusters: clusters,
		Listeners: []*listenerv3.Listener{{Name: "bare", Address: address(listen), FilterChains: []*listenerv3.FilterChain{{
			TransportSocket: &corev3.TransportSocket{Name: "tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed(&tlsv3.DownstreamTlsContext{
				CommonTlsContext: &tlsv3.CommonTlsContext{TlsCertificates: []*tlsv3.TlsCertificate{{CertificateChain: text(cert), PrivateKey: text(key)}}},
			})}},
			Filters: []*listenerv3.Filter{{Name: "http", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(manager)}}},
		}}}},
	}}
}

func filter(name string, m proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(m)}}
}

func packed(m proto.Message) *anypb.Any {
	out, err := anypb.New(m)
	if err != nil {
		panic(fatal(err.Error()))
	}
	return out
}

func address(hostport string) *corev3.Address {
	host, port, _ := net.SplitHostPort(hostport)
	n, _ := strconv.ParseUint(port, 10, 16)
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(n)},
	}}}
}

func cluster(name, hostport string, http2 bool) *clusterv3.Cluster {
	out := &clusterv3.Cluster{
		Name: name, ConnectTimeout: durationpb.New(time.Second), ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address(hostport)}}}},
		}}},
	}
	if http2 {
		out.TypedExtensionProtocolOptions = map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": packed(&httpv3.HttpProtocolOptions{
			UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: &corev3.Http2ProtocolOptions{}},
			}},
		})}
	}
	return out
}
