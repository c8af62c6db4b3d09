package push

import (
	"strings"
	"sync"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	"google.golang.org/protobuf/proto"

	"tollgate/xds/release"
)

// references knows what each route configuration names. It is asked once for
// each version, however many proxies run it.
type references struct {
	mu    sync.Mutex
	known map[string][]string // version → mentions
}

// maxKnown bounds what is remembered of old versions.
const maxKnown = 4096

// of returns the mentions (see key.mention) of a route configuration.
func (r *references) of(one *release.Resource) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if list, ok := r.known[one.Version]; ok {
		return list
	}
	if r.known == nil || len(r.known) >= maxKnown {
		r.known = map[string][]string{}
	}
	var config routev3.RouteConfiguration
	if err := proto.Unmarshal(one.Body.GetValue(), &config); err != nil {
		return nil
	}
	seen := map[string]bool{}
	list := []string{}
	add := func(url, name string) {
		if m := (key{one.Audience, url, name}).mention(); name != "" && !seen[m] {
			seen[m] = true
			list = append(list, m)
		}
	}
	for _, host := range config.GetVirtualHosts() {
		for _, route := range host.GetRoutes() {
			for _, cluster := range clusters(route) {
				add(release.TypeCluster, cluster)
				add(release.TypeEndpoint, cluster)
			}
			add(release.TypePolicy, policy(route))
			for _, owner := range owners(route) {
				add(release.TypeRuleSet, owner)
			}
		}
	}
	r.known[one.Version] = list
	return list
}

// clusters are those that a route may send a request to.
func clusters(route *routev3.Route) []string {
	action := route.GetRoute()
	if action == nil {
		return nil
	}
	names := []string{action.GetCluster()}
	for _, c := range action.GetWeightedClusters().GetClusters() {
		names = append(names, c.GetName())
	}
	for _, m := range action.GetRequestMirrorPolicies() {
		names = append(names, m.GetCluster())
	}
	return names
}

func policy(route *routev3.Route) string {
	for _, config := range route.GetTypedPerFilterConfig() {
		var authz authzv3.ExtAuthzPerRoute
		if !config.MessageIs(&authz) || config.UnmarshalTo(&authz) != nil {
			continue
		}
		return authz.GetCheckSettings().GetContextExtensions()["policy"]
	}
	return ""
}

// owners are the rule sets of routes that a route's descriptors feed: their
// slots are "route/<route>/<limit>". Sets of plans and of the gateway are fed by
// nearly every route, so they only wait for their time.
func owners(route *routev3.Route) []string {
	var names []string
	for _, config := range route.GetTypedPerFilterConfig() {
		var limits ratelimitv3.RateLimitPerRoute
		if !config.MessageIs(&limits) || config.UnmarshalTo(&limits) != nil {
			continue
		}
		for _, limit := range limits.GetRateLimits() {
			slot := limit.GetActions()[0].GetGenericKey().GetDescriptorValue()
			if cut := strings.LastIndexByte(slot, '/'); strings.HasPrefix(slot, "route/") && cut > len("route/") {
				names = append(names, slot[:cut])
			}
		}
	}
	return names
}
