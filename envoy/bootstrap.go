package envoy

import (
	"fmt"
	"net"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"tollgate/api/contract"
	"tollgate/internal/peer"
)

const adsCluster = "tollgate-ads"

// Bootstrap is what a proxy must know before it meets the control plane.
type Bootstrap struct {
	NodeID       string
	Zone         string
	XDSServers   []string // host:port or unix:PATH, tried in turn
	AdminAddress string   // host:port of loopback, or unix:PATH
	// TrustDomain is that of the control planes' certificates: the proxy meets them
	// over TLS, by the files that WriteIdentity makes in its working directory.
	// Empty: plain text.
	TrustDomain string
	// HeapBytes is what the proxy may allocate; 0: DefaultHeap.
	HeapBytes uint64
}

// JSON returns the bootstrap as Envoy reads it. Its shape was tried on Envoy
// 1.40: it starts without warnings, never goes live on an empty set of
// listeners, notices a hung control plane in 8 s and tries again within 5 s.
func (b Bootstrap) JSON() ([]byte, error) {
	admin, err := address(b.AdminAddress)
	if err != nil {
		return nil, fmt.Errorf("--envoy-admin-address: %w", err)
	}
	if pipe := admin.GetPipe(); pipe != nil {
		pipe.Mode = 0o600 // it can stop the proxy and shows what it is told
	}
	ads, err := b.cluster()
	if err != nil {
		return nil, err
	}
	overload, err := overloadManager(b.heap())
	if err != nil {
		return nil, err
	}
	rtds := &bootstrapv3.RuntimeLayer_RtdsLayer{Name: contract.RuntimeLayer, RtdsConfig: adsSource(2 * time.Second)}
	config := &bootstrapv3.Bootstrap{
		Node:  &corev3.Node{Id: b.NodeID, Cluster: "edge", Locality: &corev3.Locality{Zone: b.Zone}},
		Admin: &bootstrapv3.Admin{Address: admin},
		LayeredRuntime: &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{
			{Name: "base", LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: &structpb.Struct{
				Fields: map[string]*structpb.Value{
					"re2.max_program_size.error_level": structpb.NewNumberValue(10000),
					// One request of a connection in each turn of a worker, so that a client
					// with a hundred streams makes nobody else wait (Envoy's answer to rapid resets).
					"http.max_requests_per_io_cycle": structpb.NewNumberValue(1),
				},
			}}},
			{Name: "rtds", LayerSpecifier: &bootstrapv3.RuntimeLayer_RtdsLayer_{RtdsLayer: rtds}},
			{Name: "admin", LayerSpecifier: &bootstrapv3.RuntimeLayer_AdminLayer_{AdminLayer: &bootstrapv3.RuntimeLayer_AdminLayer{}}},
		}},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{
			AdsConfig: &corev3.ApiConfigSource{
				ApiType: corev3.ApiConfigSource_DELTA_GRPC, TransportApiVersion: corev3.ApiVersion_V3, SetNodeOnFirstMessageOnly: true,
				GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
					ClusterName: adsCluster,
					RetryPolicy: &corev3.RetryPolicy{RetryBackOff: &corev3.BackoffStrategy{
						BaseInterval: durationpb.New(100 * time.Millisecond), MaxInterval: durationpb.New(5 * time.Second),
					}},
				}}}},
			},
			CdsConfig: adsSource(0),
			LdsConfig: adsSource(0),
		},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{Clusters: []*clusterv3.Cluster{ads}},
		OverloadManager: overload,
		StatsConfig:     keptStats(),
	}
	return protojson.MarshalOptions{Indent: "  "}.Marshal(config)
}

func (b Bootstrap) cluster() (*clusterv3.Cluster, error) {
	var endpoints []*endpointv3.LbEndpoint
	kind := clusterv3.Cluster_STATIC
	for _, server := range b.XDSServers {
		a, err := address(server)
		if err != nil {
			return nil, fmt.Errorf("--xds-servers: %w", err)
		}
		if a.GetPipe() == nil && net.ParseIP(a.GetSocketAddress().GetAddress()) == nil {
			kind = clusterv3.Cluster_STRICT_DNS
		}
		endpoints = append(endpoints, &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: a}}})
	}
	if len(endpoints) == 0 {
		return nil, fmt.Errorf("--xds-servers names no control plane: write host:port or unix:PATH")
	}
	options, err := anypb.New(&httpv3.HttpProtocolOptions{UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
		ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
				ConnectionKeepalive: &corev3.KeepaliveSettings{Interval: durationpb.New(5 * time.Second), Timeout: durationpb.New(3 * time.Second)},
			}},
		},
	}})
	if err != nil {
		return nil, err
	}
	cluster := &clusterv3.Cluster{
		Name: adsCluster, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: kind}, ConnectTimeout: durationpb.New(time.Second),
		LoadAssignment:                &endpointv3.ClusterLoadAssignment{ClusterName: adsCluster, Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: endpoints}}},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
	}
	if b.TrustDomain != "" && endpoints[0].GetEndpoint().GetAddress().GetPipe() == nil {
		cluster.TransportSocket, err = identitySocket(b.TrustDomain)
	}
	return cluster, err
}

func adsSource(initialFetch time.Duration) *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3, InitialFetchTimeout: durationpb.New(initialFetch),
	}
}

// keptStats leaves out what nobody reads: with all of them a scrape of 2,500
// clusters is 40 MB (measured on 1.40).
func keptStats() *metricsv3.StatsConfig {
	list := &matcherv3.ListStringMatcher{}
	for _, prefix := range []string{"cluster_manager.", "listener_manager.", "control_plane.", "runtime.", "server.", "overload.", "filesystem."} {
		list.Patterns = append(list.Patterns, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix}})
	}
	for _, regex := range []string{
		`cluster\..*\.(upstream_(rq|cx)_.*|membership_.*|update_rejected|warming_state|init_fetch_timeout|outlier_detection\..*|health_check\..*|circuit_breakers\..*|ext_authz\..*|ratelimit\..*)`,
		`http\..*\.(downstream_(rq|cx)_.*|rds\..*\.update_.*|no_cluster|no_route|ext_authz\..*|ratelimit\..*)`,
		`.*\.http_local_rate_limit\..*`,
		`sds\..*\.update_.*`,
	} {
		list.Patterns = append(list.Patterns, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: regex}}})
	}
	return &metricsv3.StatsConfig{StatsMatcher: &metricsv3.StatsMatcher{StatsMatcher: &metricsv3.StatsMatcher_InclusionList{InclusionList: list}}}
}

func address(text string) (*corev3.Address, error) {
	a, err := peer.Parse(text)
	if err != nil {
		return nil, err
	}
	if a.Socket() {
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: a.Path}}}, nil
	}
	if a.Host == "" {
		a.Host = "0.0.0.0"
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: a.Host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port)},
	}}}, nil
}
