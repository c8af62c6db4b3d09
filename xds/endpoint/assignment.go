package endpoint

import (
	"cmp"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"tollgate/xds/compile/field"
	"tollgate/xds/config"
)

// place is one instance of an upstream, written in the file or registered.
type place struct {
	config.Endpoint
	draining bool
}

// assignment lists the endpoints of the cluster called name. Localities carry
// their weight only for gRPC clients, which ignore a locality without one;
// Envoy then spreads over all endpoints, whatever their zone.
func assignment(name string, places []place, localityWeights bool) *endpointv3.ClusterLoadAssignment {
	sorted := slices.Clone(places)
	slices.SortFunc(sorted, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.Failover, b.Failover), cmp.Compare(a.Zone, b.Zone), a.Address.Compare(b.Address))
	})
	cla := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	// Priorities must be 0, 1, 2 … without a gap, whatever the file wrote.
	priority, written := uint32(0), uint32(0)
	var locality *endpointv3.LocalityLbEndpoints
	var weight uint32
	for i, e := range sorted {
		switch {
		case i == 0:
			written = e.Failover
		case e.Failover != written:
			written, priority = e.Failover, priority+1
			locality = nil
		}
		if locality == nil || locality.GetLocality().GetZone() != e.Zone {
			locality = &endpointv3.LocalityLbEndpoints{Locality: &corev3.Locality{Zone: e.Zone}, Priority: priority}
			cla.Endpoints = append(cla.Endpoints, locality)
			weight = 0
		}
		locality.LbEndpoints = append(locality.LbEndpoints, lbEndpoint(e))
		weight += max(e.Weight, 1)
		if localityWeights {
			locality.LoadBalancingWeight = field.Uint(weight)
		}
	}
	return cla
}

func lbEndpoint(e place) *endpointv3.LbEndpoint {
	out := &endpointv3.LbEndpoint{
		HostIdentifier:      &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: field.Address(e.Address)}},
		LoadBalancingWeight: field.Uint(max(e.Weight, 1)),
	}
	if e.draining {
		out.HealthStatus = corev3.HealthStatus_DRAINING
	}
	return out
}
