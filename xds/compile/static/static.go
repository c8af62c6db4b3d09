// Package static turns a release into a bootstrap that asks no control plane,
// for a throwaway Envoy: of a test, of a benchmark. Invariant: what Envoy does
// with a request is the same as when it is told over xDS.
package static

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"tollgate/xds/compile/field"
	"tollgate/xds/release"
)

// Bootstrap holds what proxies are sent of some objects, which stay as they
// are. Runtime is left out: Envoy takes it from a stream alone.
func Bootstrap(objects []release.Object) (*bootstrapv3.Bootstrap, error) {
	out := &bootstrapv3.Bootstrap{
		Node:            &corev3.Node{Id: "static", Cluster: "edge"},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{},
		// As the bootstrap of package envoy has it: a guard's expression is large.
		LayeredRuntime: &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{Name: "base", LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{
			StaticLayer: field.Struct(map[string]any{"re2.max_program_size.error_level": 10000}),
		}}}},
	}
	routes, endpoints := tables{}, map[string]*endpointv3.ClusterLoadAssignment{}
	for _, o := range objects {
		if o.Audience != release.Edge {
			continue
		}
		switch m := proto.Clone(o.Message).(type) {
		case *routev3.RouteConfiguration:
			routes[o.Name] = m
		case *endpointv3.ClusterLoadAssignment:
			endpoints[o.Name] = m
		case *clusterv3.Cluster:
			out.StaticResources.Clusters = append(out.StaticResources.Clusters, m)
		case *listenerv3.Listener:
			out.StaticResources.Listeners = append(out.StaticResources.Listeners, m)
		case *tlsv3.Secret:
			out.StaticResources.Secrets = append(out.StaticResources.Secrets, m)
		}
	}
	for _, c := range out.GetStaticResources().GetClusters() {
		if c.GetType() == clusterv3.Cluster_EDS {
			c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
			c.EdsClusterConfig, c.LoadAssignment = nil, endpoints[c.GetName()]
		}
		if err := ownSecrets(c.GetTransportSocket(), &tlsv3.UpstreamTlsContext{}); err != nil {
			return nil, fmt.Errorf("cluster %q: %w", c.GetName(), err)
		}
	}
	for _, l := range out.GetStaticResources().GetListeners() {
		if err := routes.own(l); err != nil {
			return nil, fmt.Errorf("listener %q: %w", l.GetName(), err)
		}
	}
	return out, nil
}

// tables are route configurations by name.
type tables map[string]*routev3.RouteConfiguration

// own puts the routes of a listener where it names them.
func (t tables) own(l *listenerv3.Listener) error {
	for _, chain := range l.GetFilterChains() {
		if err := ownSecrets(chain.GetTransportSocket(), &tlsv3.DownstreamTlsContext{}); err != nil {
			return err
		}
		filter := chain.GetFilters()[len(chain.GetFilters())-1]
		hcm := &hcmv3.HttpConnectionManager{}
		if err := filter.GetTypedConfig().UnmarshalTo(hcm); err != nil {
			return err
		}
		if scoped := hcm.GetScopedRoutes(); scoped != nil {
			scoped.ConfigSpecifier = &hcmv3.ScopedRoutes_ScopedRouteConfigurationsList{ScopedRouteConfigurationsList: t.parts(scoped.GetName() + "/")}
			scoped.RdsConfigSource = nil
		} else {
			hcm.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: t[l.GetName()]}
		}
		filter.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: field.Any(hcm)}
	}
	return nil
}

// parts are the scopes whose names begin so; each is named as its routes and
// its key are.
func (t tables) parts(prefix string) *hcmv3.ScopedRouteConfigurationsList {
	out := &hcmv3.ScopedRouteConfigurationsList{}
	for _, name := range slices.Sorted(maps.Keys(t)) {
		if strings.HasPrefix(name, prefix) {
			key := &routev3.ScopedRouteConfiguration_Key_Fragment{Type: &routev3.ScopedRouteConfiguration_Key_Fragment_StringKey{StringKey: name}}
			out.ScopedRouteConfigurations = append(out.ScopedRouteConfigurations, &routev3.ScopedRouteConfiguration{
				Name: name, RouteConfiguration: t[name], Key: &routev3.ScopedRouteConfiguration_Key{Fragments: []*routev3.ScopedRouteConfiguration_Key_Fragment{key}},
			})
		}
	}
	return out
}

// ownSecrets takes secrets from the bootstrap instead of a stream.
func ownSecrets[T interface {
	proto.Message
	GetCommonTlsContext() *tlsv3.CommonTlsContext
}](socket *corev3.TransportSocket, into T) error {
	if socket == nil {
		return nil
	}
	if err := socket.GetTypedConfig().UnmarshalTo(into); err != nil {
		return err
	}
	for _, s := range into.GetCommonTlsContext().GetTlsCertificateSdsSecretConfigs() {
		s.SdsConfig = nil
	}
	if s := into.GetCommonTlsContext().GetValidationContextSdsSecretConfig(); s != nil {
		s.SdsConfig = nil
	}
	socket.ConfigType = &corev3.TransportSocket_TypedConfig{TypedConfig: field.Any(into)}
	return nil
}
