// Package upstream turns the upstreams of a gateway into Envoy clusters and
// their endpoints. Invariant: a cluster is named by its upstream and holds no
// endpoint that can come and go, so instances change without the cluster changing.
package upstream

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	caresv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"tollgate/api/contract"
	"tollgate/xds/compile/field"
	"tollgate/xds/config"
)

// edsTimeout ends the warming of a cluster whose endpoints never come; they
// are sent right behind it, so this is a net under a fault.
const edsTimeout = 2 * time.Second

// idle is shorter than what servers usually allow, so that a request rarely
// meets a connection which its server is just closing.
const idle = 30 * time.Second

// Cluster is the cluster of an upstream that is no split.
func Cluster(u *config.Upstream) *clusterv3.Cluster {
	c := &clusterv3.Cluster{
		Name:            u.Name,
		ConnectTimeout:  field.Duration(u.ConnectTimeout),
		CircuitBreakers: breakers(u),
		// By default 1 MiB of a body waits in each connection that is slow to take it.
		PerConnectionBufferLimitBytes: field.Uint(32 << 10),
		// A panic would send requests to endpoints known to be down or leaving.
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{
			HealthyPanicThreshold: &typev3.Percent{},
			// By default Envoy lets its workers learn of a host's health up to a second
			// late: traffic for a new instance, and away from a dead one, would wait.
			UpdateMergeWindow: field.Duration(0),
		},
		TypedExtensionProtocolOptions: Protocol(u.Protocol),
		OutlierDetection:              outlier(u.Outlier),
		IgnoreHealthOnHostRemoval:     u.HealthCheck != nil,
	}
	if u.Balancing.Zones {
		c.CommonLbConfig.LocalityConfigSpecifier = &clusterv3.Cluster_CommonLbConfig_ZoneAwareLbConfig_{
			ZoneAwareLbConfig: &clusterv3.Cluster_CommonLbConfig_ZoneAwareLbConfig{
				RoutingEnabled: &typev3.Percent{Value: 100}, MinClusterSize: wrapperspb.UInt64(1),
			},
		}
	}
	discovery(c, u)
	balancing(c, u.Balancing)
	if u.HealthCheck != nil {
		c.HealthChecks = []*corev3.HealthCheck{healthCheck(u)}
	}
	if u.TLS != nil {
		c.TransportSocket = transportSocket(u)
	}
	return c
}

func discovery(c *clusterv3.Cluster, u *config.Upstream) {
	if u.DNS == "" {
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
		c.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: field.ADS(edsTimeout)}
		return
	}
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STRICT_DNS}
	c.LoadAssignment = named(u.Name, u.DNS)
	c.TypedDnsResolverConfig = resolver()
	c.DnsLookupFamily = clusterv3.Cluster_V4_PREFERRED
}

// resolver gives up on a silent name server after seconds, two tries of one and
// two. Envoy holds every listener back until each name had its answer or its
// end (seen on 1.40: over 60 s with its own bounds), so one name would harm all.
func resolver() *corev3.TypedExtensionConfig {
	return field.Extension("envoy.network.dns_resolver.cares", &caresv3.CaresDnsResolverConfig{
		QueryTimeoutSeconds: wrapperspb.UInt64(1), QueryTries: field.Uint(2),
	})
}

// named is an assignment of hosts written as host:port, names or addresses, or
// as unix:PATH.
func named(cluster string, hosts ...string) *endpointv3.ClusterLoadAssignment {
	group := &endpointv3.LocalityLbEndpoints{}
	for _, h := range hosts {
		var address *corev3.Address
		if path, socket := strings.CutPrefix(h, contract.SocketPrefix); socket {
			address = field.Pipe(path)
		} else {
			address = field.SocketAddress(SplitHostPort(h))
		}
		group.LbEndpoints = append(group.LbEndpoints, &endpointv3.LbEndpoint{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address}},
		})
	}
	return &endpointv3.ClusterLoadAssignment{ClusterName: cluster, Endpoints: []*endpointv3.LocalityLbEndpoints{group}}
}

// SplitHostPort takes host:port apart, brackets of IPv6 removed. Its input was
// checked before.
func SplitHostPort(hostport string) (string, uint32) {
	i := strings.LastIndexByte(hostport, ':')
	if i < 0 {
		return hostport, 0
	}
	port, _ := strconv.ParseUint(hostport[i+1:], 10, 16)
	return strings.Trim(hostport[:i], "[]"), uint32(port)
}

// Protocol says how the endpoints are spoken to.
func Protocol(p config.Protocol) map[string]*anypb.Any {
	options := &httpv3.HttpProtocolOptions_ExplicitHttpConfig{}
	if p == config.HTTP1 {
		options.ProtocolConfig = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{HttpProtocolOptions: &corev3.Http1ProtocolOptions{}}
	} else {
		options.ProtocolConfig = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
			ConnectionKeepalive: &corev3.KeepaliveSettings{Interval: field.Duration(30 * time.Second), Timeout: field.Duration(5 * time.Second)},
			// What an upstream may make us hold for a slow client: by default 24 MiB a connection.
			InitialStreamWindowSize: field.Uint(64 << 10), InitialConnectionWindowSize: field.Uint(1 << 20),
		}}
	}
	return map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": field.Any(&httpv3.HttpProtocolOptions{
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{IdleTimeout: field.Duration(idle)},
		UpstreamProtocolOptions:   &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: options},
	})}
}

func balancing(c *clusterv3.Cluster, b config.Balancing) {
	var slow *clusterv3.Cluster_SlowStartConfig
	if b.SlowStart > 0 {
		slow = &clusterv3.Cluster_SlowStartConfig{SlowStartWindow: field.Duration(b.SlowStart)}
	}
	switch b.Policy {
	case "least_request":
		c.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
		c.LbConfig = &clusterv3.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: &clusterv3.Cluster_LeastRequestLbConfig{SlowStartConfig: slow}}
	case "random":
		c.LbPolicy = clusterv3.Cluster_RANDOM
	case "ring_hash":
		c.LbPolicy = clusterv3.Cluster_RING_HASH
	case "maglev":
		c.LbPolicy = clusterv3.Cluster_MAGLEV
	default:
		c.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
		if slow != nil {
			c.LbConfig = &clusterv3.Cluster_RoundRobinLbConfig_{RoundRobinLbConfig: &clusterv3.Cluster_RoundRobinLbConfig{SlowStartConfig: slow}}
		}
	}
}

func breakers(u *config.Upstream) *clusterv3.CircuitBreakers {
	out := &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{thresholds(&u.Breaker, corev3.RoutingPriority_DEFAULT)}}
	if u.BreakerHigh != nil {
		out.Thresholds = append(out.Thresholds, thresholds(u.BreakerHigh, corev3.RoutingPriority_HIGH))
	}
	return out
}

func thresholds(b *config.Breaker, priority corev3.RoutingPriority) *clusterv3.CircuitBreakers_Thresholds {
	t := &clusterv3.CircuitBreakers_Thresholds{
		Priority: priority, MaxConnections: field.Uint(b.MaxConnections), MaxPendingRequests: field.Uint(b.MaxPending), MaxRequests: field.Uint(b.MaxRequests),
	}
	if b.RetryBudget > 0 {
		t.RetryBudget = &clusterv3.CircuitBreakers_Thresholds_RetryBudget{BudgetPercent: &typev3.Percent{Value: b.RetryBudget}}
	}
	return t
}

func outlier(o *config.Outlier) *clusterv3.OutlierDetection {
	if o == nil {
		return nil
	}
	out := &clusterv3.OutlierDetection{
		Interval: field.Duration(o.Interval), BaseEjectionTime: field.Duration(o.EjectFor), MaxEjectionPercent: field.Uint(o.MaxEjected),
		EnforcingSuccessRate: field.Uint(0), EnforcingConsecutive_5Xx: field.Uint(0), EnforcingConsecutiveGatewayFailure: field.Uint(0),
		EnforcingFailurePercentage: field.Uint(0),
		// An endpoint that fails its requests often passes its health check;
		// that must not bring it back before its time.
		SuccessfulActiveHealthCheckUnejectHost: field.Bool(false),
	}
	if o.Consecutive5xx > 0 {
		out.Consecutive_5Xx, out.EnforcingConsecutive_5Xx = field.Uint(o.Consecutive5xx), field.Uint(100)
	}
	if o.FailureRate > 0 {
		out.FailurePercentageThreshold, out.EnforcingFailurePercentage = field.Uint(o.FailureRate), field.Uint(100)
		out.FailurePercentageRequestVolume = field.Uint(o.MinRequests)
		out.FailurePercentageMinimumHosts = field.Uint(1) // Envoy's 5 would leave small upstreams unguarded
	}
	return out
}

func healthCheck(u *config.Upstream) *corev3.HealthCheck {
	h := u.HealthCheck
	out := &corev3.HealthCheck{
		Interval: field.Duration(h.Interval), Timeout: field.Duration(h.Timeout), NoTrafficInterval: field.Duration(h.Interval),
		HealthyThreshold: field.Uint(h.Healthy), UnhealthyThreshold: field.Uint(h.Unhealthy),
	}
	switch {
	case h.GRPC:
		out.HealthChecker = &corev3.HealthCheck_GrpcHealthCheck_{GrpcHealthCheck: &corev3.HealthCheck_GrpcHealthCheck{}}
	case h.TCP:
		out.HealthChecker = &corev3.HealthCheck_TcpHealthCheck_{TcpHealthCheck: &corev3.HealthCheck_TcpHealthCheck{}}
	default:
		check := &corev3.HealthCheck_HttpHealthCheck{Path: h.Path}
		if u.DNS != "" {
			check.Host, _ = SplitHostPort(u.DNS)
		}
		if u.Protocol != config.HTTP1 {
			check.CodecClientType = typev3.CodecClientType_HTTP2
		}
		out.HealthChecker = &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: check}
	}
	return out
}

// waiting is how many requests of a proxy may wait for servers of a role. When
// all limiters hang, each request would wait its 1.5 s, whatever comes behind it;
// beyond the bound Envoy does at once what it does when nobody answers (measured
// on 1.40: admits, or refuses if a limit is closed). It is far above what waits
// while Redis stalls, for those requests are still decided.
func waiting(role string) uint32 {
	if role == contract.RoleRateLimit {
		return 4096
	}
	return 100_000
}

// Server is the cluster of one of our own servers, tuned so that one of two
// can be killed without a failed request (measured on 1.40).
// In a fleet proxies know it by the role in its certificate. Hosts are sockets,
// which speak no TLS, or ports, never both.
func Server(name string, hosts []string, trustDomain, role string) *clusterv3.Cluster {
	kind := clusterv3.Cluster_STATIC
	sockets := slices.ContainsFunc(hosts, func(h string) bool { return strings.HasPrefix(h, contract.SocketPrefix) })
	if !sockets && slices.ContainsFunc(hosts, func(h string) bool { host, _ := SplitHostPort(h); _, err := netip.ParseAddr(host); return err != nil }) {
		kind = clusterv3.Cluster_STRICT_DNS
	}
	cluster := &clusterv3.Cluster{
		Name:                          name,
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: kind},
		ConnectTimeout:                field.Duration(100 * time.Millisecond),
		LoadAssignment:                named(name, hosts...),
		TypedExtensionProtocolOptions: Protocol(config.GRPC),
		// A server that hangs is out after two failures, and back within about a
		// second: with a longer ejection a rolling restart left nobody to ask (36 of
		// 501 requests refused, measured with 5 s).
		OutlierDetection: &clusterv3.OutlierDetection{
			Consecutive_5Xx: field.Uint(2), ConsecutiveGatewayFailure: field.Uint(2), EnforcingConsecutiveGatewayFailure: field.Uint(100),
			EnforcingSuccessRate: field.Uint(0), Interval: field.Duration(250 * time.Millisecond), BaseEjectionTime: field.Duration(time.Second),
			MaxEjectionTime: field.Duration(time.Second), MaxEjectionPercent: field.Uint(50),
		},
		CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
			MaxConnections: field.Uint(1024), MaxPendingRequests: field.Uint(10_000), MaxRequests: field.Uint(waiting(role)), MaxRetries: field.Uint(1000),
		}}},
	}
	if kind == clusterv3.Cluster_STRICT_DNS {
		cluster.TypedDnsResolverConfig = resolver()
	}
	if trustDomain != "" && !slices.ContainsFunc(hosts, func(h string) bool { return strings.HasPrefix(h, contract.SocketPrefix) }) {
		cluster.TransportSocket = ownSocket(trustDomain, role)
	}
	return cluster
}
