package routing

import (
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"tollgate/xds/release"
)

// refs are what an Envoy route names: the clusters that it may send a request
// to, its policy, and the rule set that counts by it alone. Sets of plans and of
// the gateway are fed by nearly every route, so they are nobody's.
func refs(route *routev3.Route, policy, rules string) []release.Ref {
	var out []release.Ref
	add := func(url, name string) {
		if name != "" {
			out = append(out, release.Ref{Type: url, Name: name})
		}
	}
	action := route.GetRoute()
	add(release.TypeCluster, action.GetCluster())
	for _, c := range action.GetWeightedClusters().GetClusters() {
		add(release.TypeCluster, c.GetName())
	}
	for _, m := range action.GetRequestMirrorPolicies() {
		add(release.TypeCluster, m.GetCluster())
	}
	add(release.TypePolicy, policy)
	add(release.TypeRuleSet, rules)
	return out
}

// mentions gathers refs, each once, in the order of first mention. The zero
// value is empty.
type mentions struct {
	seen map[release.Ref]bool
	refs []release.Ref
}

func (m *mentions) entries(entries []*entry) {
	for _, e := range entries {
		m.add(e.refs)
	}
}

func (m *mentions) add(refs []release.Ref) {
	if m.seen == nil {
		m.seen = map[release.Ref]bool{}
	}
	for _, ref := range refs {
		if !m.seen[ref] {
			m.seen[ref] = true
			m.refs = append(m.refs, ref)
		}
	}
}
