package routing

import (
	"maps"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"tollgate/xds/compile/field"
	"tollgate/xds/compile/guard"
	"tollgate/xds/compile/matching"
	"tollgate/xds/compile/refusal"
	"tollgate/xds/config"
)

// refuse answers whatever m matches, asking nobody.
func (b *Builder) refuse(r refusal.Refusal, name string, m *routev3.RouteMatch) *routev3.Route {
	body := b.bodies[r]
	if body == nil {
		body = r.Body()
		b.bodies[r] = body
	}
	return &routev3.Route{
		Name: name, Match: m, TypedPerFilterConfig: b.unauthorized,
		Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: uint32(r.Status), BodyFormat: body}},
	}
}

// group are hosts of a listener that have the same routes.
type group struct {
	hosts   []string
	entries []*entry // in the order in which they are tried
	filters map[string]*anypb.Any
}

// groups are the hosts of a listener by the routes they have. Envoy never falls
// through from one virtual host to the next, so each holds the routes of less
// exact hosts behind its own.
func (b *Builder) groups(l *config.Listener) (out []*group) {
	byHost := b.byHost(l, func(i int) []*entry { return b.entries(i, l.TLS != nil) })
	known := map[string]*group{}
	for _, host := range slices.Sorted(maps.Keys(byHost)) {
		entries := reachable(byHost, host)
		key := fingerprint(entries)
		if g := known[key]; g != nil && host != "*" && g.hosts[0] != "*" {
			g.hosts = append(g.hosts, host)
			continue
		}
		g := &group{hosts: []string{host}, entries: b.ordered(entries)}
		var looks guard.Host
		for _, e := range g.entries {
			looks.Look(&e.from.Match)
		}
		g.filters = looks.PerHost()
		known[key] = g
		out = append(out, g)
	}
	return out
}

// virtualHost holds some of the hosts and routes of a group.
func (g *group) virtualHost(hosts []string, entries []*entry) *routev3.VirtualHost {
	out := &routev3.VirtualHost{Name: hosts[0], Domains: hosts, TypedPerFilterConfig: g.filters}
	for _, e := range entries {
		out.Routes = append(out.Routes, e.route)
	}
	return out
}

// hostsOf are the hosts of a route; "*" for all.
func hostsOf(r *config.Route) []string {
	if len(r.Match.Hosts) == 0 {
		return []string{"*"}
	}
	return r.Match.Hosts
}

// byHost gathers the entries of the routes of a listener by their hosts.
func (b *Builder) byHost(l *config.Listener, entries func(i int) []*entry) map[string][]*entry {
	out := map[string][]*entry{"*": nil}
	for i, r := range b.gw.Routes {
		if len(r.Listeners) > 0 && !slices.Contains(r.Listeners, l.Name) {
			continue
		}
		of := entries(i)
		for _, host := range hostsOf(r) {
			out[host] = append(out[host], of...)
		}
	}
	return out
}

// reachable lists what a request to host may match.
func reachable(byHost map[string][]*entry, host string) []*entry {
	patterns, count := patterns(host), 0
	for _, pattern := range patterns {
		count += len(byHost[pattern])
	}
	out, seen := make([]*entry, 0, count), make(map[*entry]bool, count)
	place := -1
	for _, pattern := range patterns {
		// Only patterns that routes have count, so that hosts of the same routes
		// can share a virtual host.
		if len(byHost[pattern]) > 0 {
			place++
		}
		for _, e := range byHost[pattern] {
			if seen[e] {
				continue // a route that names both a.x and *.x
			}
			seen[e] = true
			placed := *e
			placed.rank.host, placed.rank.order = place, len(out)
			out = append(out, &placed)
		}
	}
	return out
}

// patterns are the hosts of routes that take a request to host: itself, then
// wildcards from the longest, then "*".
func patterns(host string) []string {
	if host == "*" {
		return []string{"*"}
	}
	out := []string{host}
	rest := strings.TrimPrefix(host, "*.")
	if rest == host {
		_, rest, _ = strings.Cut(host, ".")
	} else {
		_, rest, _ = strings.Cut(rest, ".")
	}
	for rest != "" {
		out = append(out, "*."+rest)
		_, rest, _ = strings.Cut(rest, ".")
	}
	return append(out, "*")
}

// fingerprint is equal for equal lists of routes.
func fingerprint(entries []*entry) string {
	var b strings.Builder
	for i := range entries {
		b.WriteString(entries[i].route.GetName())
		b.WriteByte(0)
		b.WriteByte(byte(min(entries[i].rank.host, 255)))
	}
	return b.String()
}

// pathKey tells paths apart, whatever else a route asks for.
type pathKey struct {
	kind int
	path string
}

// allowed gathers the routes of one path.
type allowed struct {
	first   *entry
	rank    rank
	methods []string
	all     bool // some route takes every method
	plain   bool // some route asks for nothing but the path and its methods
}

// ordered sorts the routes of a host and adds, behind those of each path, a
// 405 for methods that none of them takes.
func (b *Builder) ordered(entries []*entry) []*entry {
	paths := map[pathKey]*allowed{}
	var order []*allowed
	for _, e := range entries {
		if e.rank.seq < 0 {
			continue
		}
		k := pathKey{e.rank.kind, e.rank.path}
		a := paths[k]
		if a == nil {
			a = &allowed{first: e, rank: e.rank}
			paths[k] = a
			order = append(order, a)
		}
		// Raised routes of a path must not lift its 405 over other paths.
		a.rank.priority = min(a.rank.priority, e.rank.priority, 0)
		a.rank.host = min(a.rank.host, e.rank.host)
		a.methods = append(a.methods, e.from.Match.Methods...)
		a.all = a.all || len(e.from.Match.Methods) == 0
		a.plain = a.plain || e.rank.conditions == 0
	}
	for _, a := range order {
		if !a.all && a.plain {
			entries = append(entries, b.refuseMethod(a))
		}
	}
	slices.SortFunc(entries, func(a, b *entry) int { return a.rank.compare(&b.rank) })
	return entries
}

func (b *Builder) refuseMethod(a *allowed) *entry {
	slices.SortFunc(a.methods, matching.CompareMethods)
	methods := matching.WithHead(slices.Compact(a.methods))
	m := matching.WithMethods(matching.Path(&a.first.from.Match), methods)
	m.GetHeaders()[0].InvertMatch = true
	e := &entry{rank: a.rank, from: a.first.from}
	e.rank.conditions, e.rank.order, e.rank.seq = -1, 0, 0
	e.route = b.refuse(refusal.Refusal{Status: 405, Reason: "method_not_allowed", Message: "Method not allowed"}, a.first.from.Name+suffixAllow, m)
	e.route.ResponseHeadersToAdd = []*corev3.HeaderValueOption{field.SetHeader("allow", strings.Join(methods, ", "))}
	return e
}
