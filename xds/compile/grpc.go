package compile

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"tollgate/xds/compile/field"
	"tollgate/xds/compile/routing"
	"tollgate/xds/compile/upstream"
	"tollgate/xds/config"
)

// grpcListener answers a gRPC client that dials xds:///NAME. Such a client is
// inside: it gets the upstream's endpoints and split, no identity and no limit.
func grpcListener(u *config.Upstream) *listenerv3.Listener {
	action := &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: u.Name}}
	if len(u.Split) > 0 {
		action.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: routing.WeightedClusters(u)}
	}
	hcm := &hcmv3.HttpConnectionManager{
		StatPrefix:  u.Name,
		HttpFilters: []*hcmv3.HttpFilter{filter(routerFilter, &routerv3.Router{})},
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
			Name: u.Name,
			VirtualHosts: []*routev3.VirtualHost{{Name: u.Name, Domains: []string{"*"}, Routes: []*routev3.Route{{
				Name: u.Name, Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: ""}},
				Action: &routev3.Route_Route{Route: action},
			}}}},
		}},
	}
	return &listenerv3.Listener{Name: u.Name, ApiListener: &listenerv3.ApiListener{ApiListener: field.Any(hcm)}}
}

// grpcCluster keeps to what gRPC clients take: they refuse a cluster for a
// balancing policy or a transport socket that they do not know.
func grpcCluster(u *config.Upstream) *clusterv3.Cluster {
	full := upstream.Cluster(u)
	out := &clusterv3.Cluster{
		Name: u.Name, ClusterDiscoveryType: full.GetClusterDiscoveryType(), EdsClusterConfig: full.GetEdsClusterConfig(),
		CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
			Priority: corev3.RoutingPriority_DEFAULT, MaxRequests: field.Uint(u.Breaker.MaxRequests),
		}}},
	}
	if u.DNS != "" {
		out.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_LOGICAL_DNS}
		out.LoadAssignment = full.GetLoadAssignment()
	} else {
		out.EdsClusterConfig.EdsConfig = field.ADS(15 * time.Second)
	}
	switch u.Balancing.Policy {
	case "least_request":
		out.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
	case "ring_hash", "maglev":
		out.LbPolicy = clusterv3.Cluster_RING_HASH
	default:
		out.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
	}
	return out
}
