package routes

import (
	"encoding/hex"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"tollgate/xds/release"
)

// Interims remembers, by name, in which form route configurations of one client
// wait, because every answer of the client asks for it again.
type Interims map[string]waiting

type waiting struct {
	old, next *release.Resource
	warming   string
	made      *release.Resource
}

// Of is Interim, made anew only when something differs.
func (w Interims) Of(old, next *release.Resource, warming []string) *release.Resource {
	known := w[next.Name]
	if known.made != nil && old == known.made {
		old = known.old // it was sent; what it was made of counts
	}
	names := strings.Join(warming, "\n")
	if known.next == next && known.warming == names && known.old == old {
		return known.made
	}
	wait := make(map[string]bool, len(warming))
	for _, name := range warming {
		wait[name] = true
	}
	made := Interim(old, next, wait)
	w[next.Name] = waiting{old: old, next: next, warming: names, made: made}
	return made
}

// Drop forgets a route configuration that waits no more.
func (w Interims) Drop(name string) { delete(w, name) }

// Interim is a route configuration in which every route to a cluster that is
// still warming keeps its old form, or is left out when it had none; all other
// routes are new already. It returns nil when the whole must wait, because what
// the client runs is not known. old may be nil.
func Interim(old, next *release.Resource, warming map[string]bool) *release.Resource {
	if old == nil {
		return nil
	}
	var before, after routev3.RouteConfiguration
	if proto.Unmarshal(old.Body.GetValue(), &before) != nil || proto.Unmarshal(next.Body.GetValue(), &after) != nil {
		return nil
	}
	kept := remember(&before)
	waits := func(route *routev3.Route) bool {
		return slices.ContainsFunc(clusters(route), func(c string) bool { return warming[c] })
	}
	for _, host := range after.GetVirtualHosts() {
		held := map[string]bool{}
		for _, route := range host.GetRoutes() {
			held[route.GetName()] = held[route.GetName()] || waits(route)
		}
		routes := make([]*routev3.Route, 0, len(host.GetRoutes()))
		done := map[string]bool{}
		for _, route := range host.GetRoutes() {
			switch name := route.GetName(); {
			case !held[name]:
				routes = append(routes, route)
			case !done[name]:
				done[name] = true
				routes = append(routes, slices.DeleteFunc(slices.Clone(kept.of(host, name)), waits)...)
			}
		}
		host.Routes = routes
	}
	return interimOf(next, &after)
}

func interimOf(next *release.Resource, config *routev3.RouteConfiguration) *release.Resource {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(config)
	if err != nil {
		return nil
	}
	sum := xxh3.Hash(data) // what is kept differs from client to client
	part := hex.EncodeToString([]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
	return &release.Resource{
		Audience: next.Audience, Type: next.Type, Name: next.Name, Version: next.Version + "-" + part,
		Body: &anypb.Any{TypeUrl: next.Type, Value: data}, Pos: next.Pos,
	}
}

// earlier finds the routes that a client runs, by domain and name: virtual
// hosts are regrouped from release to release, what a domain serves is not.
type earlier map[[2]string][]*routev3.Route

// remember keeps a name's routes together, because it may stand for several.
func remember(config *routev3.RouteConfiguration) earlier {
	e := earlier{}
	for _, host := range config.GetVirtualHosts() {
		for _, route := range host.GetRoutes() {
			for _, domain := range host.GetDomains() {
				k := [2]string{domain, route.GetName()}
				e[k] = append(e[k], route)
			}
		}
	}
	return e
}

func (e earlier) of(host *routev3.VirtualHost, route string) []*routev3.Route {
	for _, domain := range host.GetDomains() {
		if found := e[[2]string{domain, route}]; len(found) > 0 {
			return found
		}
	}
	return nil
}
