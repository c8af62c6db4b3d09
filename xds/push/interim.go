package push

import (
	"encoding/hex"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"tollgate/xds/release"
)

// interim is a route configuration in which every route to a cluster that is
// still warming keeps its old form, or is left out when it had none; all other
// routes are new already. It returns nil when the whole must wait, because what
// the client runs is not known. old may be nil.
func interim(old, next *release.Resource, warming map[string]bool) *release.Resource {
	if old == nil {
		return nil
	}
	var before, after routev3.RouteConfiguration
	if proto.Unmarshal(old.Body.GetValue(), &before) != nil || proto.Unmarshal(next.Body.GetValue(), &after) != nil {
		return nil
	}
	kept := map[string][]*routev3.Route{} // by virtual host and route name; a name may stand for several
	for _, host := range before.GetVirtualHosts() {
		for _, route := range host.GetRoutes() {
			kept[host.GetName()+"\n"+route.GetName()] = append(kept[host.GetName()+"\n"+route.GetName()], route)
		}
	}
	waits := func(route *routev3.Route) bool {
		return slices.ContainsFunc(clusters(route), func(c string) bool { return warming[c] })
	}
	for _, host := range after.GetVirtualHosts() {
		routes := make([]*routev3.Route, 0, len(host.GetRoutes()))
		held := map[string]bool{}
		for _, route := range host.GetRoutes() {
			held[route.GetName()] = held[route.GetName()] || waits(route)
		}
		done := map[string]bool{}
		for _, route := range host.GetRoutes() {
			switch name := route.GetName(); {
			case !held[name]:
				routes = append(routes, route)
			case !done[name]:
				done[name] = true
				routes = append(routes, slices.DeleteFunc(slices.Clone(kept[host.GetName()+"\n"+name]), waits)...)
			}
		}
		host.Routes = routes
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(&after)
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
