// Package endpoint makes the endpoints of upstreams, for proxies and for gRPC
// clients, of what the gateway file says and of who is registered. Invariants: it
// is a pure function; what an upstream is given depends on nothing but that
// upstream and the instances of its service, so a change of instances is a change
// of those resources alone and never passes through compile.
package endpoint

import (
	"slices"

	"tollgate/xds/config"
	"tollgate/xds/discovery"
	"tollgate/xds/release"
)

// Instances are those that are registered, by service: an empty list where all
// have left, no list where none was ever heard of. The lists are not changed. nil
// is a registry that knows that there are none.
type Instances map[string][]discovery.Instance

// Objects are the endpoints of all upstreams that have any, sorted by audience;
// those with a name are asked for at their name server, by the proxies.
func Objects(upstreams []config.Upstream, now Instances) []release.Object {
	return objects(upstreams, now, func(*config.Upstream) bool { return true })
}

// Changed are the endpoints of those upstreams whose instances changed.
func Changed(upstreams []config.Upstream, before, now Instances) []release.Object {
	return objects(upstreams, now, func(u *config.Upstream) bool {
		was, known := before[u.Registry]
		is, heard := now[u.Registry]
		return u.Registry != "" && (known != heard || !slices.Equal(was, is))
	})
}

// Lane gives the endpoints of one gateway after the other. What an upstream that
// says the same (config.Edition) has with the same instances is not made again.
// The zero value has seen nothing; it is for one goroutine.
type Lane struct{ known map[*config.Edition]made }

type made struct {
	registered []discovery.Instance
	heard      bool // of the service
	objects    []release.Object
}

// Objects is the function Objects, at the cost of what changed; in no order.
func (l *Lane) Objects(upstreams []config.Upstream, now Instances) []release.Object {
	next := make(map[*config.Edition]made, len(upstreams))
	var out []release.Object
	for i := range upstreams {
		u := &upstreams[i]
		registered, heard := now[u.Registry]
		heard = heard || now == nil
		known, ok := l.known[u.Edition]
		if !ok || u.Edition == nil || known.heard != heard || !slices.Equal(known.registered, registered) {
			known = made{registered, heard, Objects(upstreams[i:i+1], now)}
			for k := range known.objects {
				known.objects[k].Memo = &release.Memo{}
			}
		}
		next[u.Edition] = known
		for _, o := range known.objects {
			o.Pos = u.Pos
			out = append(out, o)
		}
	}
	l.known = next
	return out
}

func objects(upstreams []config.Upstream, now Instances, pick func(*config.Upstream) bool) []release.Object {
	var out []release.Object
	for _, audience := range []release.Audience{release.Edge, release.GRPC} {
		for i := range upstreams {
			u := &upstreams[i]
			registered, known := now[u.Registry]
			if len(u.Split) > 0 || u.DNS != "" || !pick(u) {
				continue
			}
			// Of a service that was never heard of nothing is said, and a proxy keeps the
			// endpoints that another control plane told it (Envoy 1.40 takes the answer
			// "not there" for an endpoint name so). A gRPC client would wait for ever.
			if now != nil && u.Registry != "" && !known && len(u.Endpoints) == 0 && audience == release.Edge {
				continue
			}
			// gRPC clients ignore a locality without a weight.
			message := assignment(u.Name, places(u, registered), audience == release.GRPC)
			out = append(out, release.Object{Audience: audience, Type: release.TypeEndpoint, Name: u.Name, Message: message, Pos: u.Pos})
		}
	}
	return out
}

func places(u *config.Upstream, registered []discovery.Instance) []place {
	var out []place
	for _, e := range u.Endpoints {
		out = append(out, place{Endpoint: e})
	}
	if u.Registry == "" {
		return out
	}
	for _, i := range registered {
		out = append(out, place{Endpoint: config.Endpoint{Address: i.Address, Weight: i.Weight, Zone: i.Zone}, draining: i.Draining})
	}
	return out
}
