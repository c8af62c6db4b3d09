package compile

import (
	"tollgate/xds/compile/routing"
	"tollgate/xds/compile/shard"
	"tollgate/xds/compile/upstream"
	"tollgate/xds/config"
	"tollgate/xds/release"
)

// listenerRefs are what a listener names: its certificates, its routes, and the
// servers that its filters ask.
func (b *builder) listenerRefs(l *config.Listener, form *shard.Form) []release.Ref {
	var out []release.Ref
	if l.TLS != nil {
		for i := range l.TLS.Certs {
			out = append(out, release.Ref{Type: release.TypeSecret, Name: certSecret(l.Name, i)})
		}
		if l.TLS.ClientCA != nil {
			out = append(out, release.Ref{Type: release.TypeSecret, Name: clientCASecret(l.Name)})
		}
	}
	out = append(out, routesRefs(l, form)...)
	out = append(
		out, release.Ref{Type: release.TypeCluster, Name: extAuthzCluster}, release.Ref{Type: release.TypeCluster, Name: rateLimitCluster},
	)
	if b.gw.Tracing != nil {
		out = append(out, release.Ref{Type: release.TypeCluster, Name: otlpCluster})
	}
	return out
}

// grpcListenerRefs are the clusters that the routes within name.
func grpcListenerRefs(u *config.Upstream) []release.Ref {
	if len(u.Split) == 0 {
		return []release.Ref{{Type: release.TypeCluster, Name: u.Name}}
	}
	var out []release.Ref
	for _, c := range routing.WeightedClusters(u).GetClusters() {
		out = append(out, release.Ref{Type: release.TypeCluster, Name: c.GetName()})
	}
	return out
}

// clusterRefs are the endpoints of a cluster and its certificate.
func clusterRefs(u *config.Upstream) []release.Ref {
	out := assignmentRefs(u)
	if u.TLS != nil && u.TLS.Cert != nil {
		out = append(out, release.Ref{Type: release.TypeSecret, Name: upstream.SecretName(u.Name)})
	}
	return out
}

// assignmentRefs are the endpoints of a cluster that asks for them.
func assignmentRefs(u *config.Upstream) []release.Ref {
	if u.DNS != "" {
		return nil
	}
	return []release.Ref{{Type: release.TypeEndpoint, Name: u.Name}}
}
