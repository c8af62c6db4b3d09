// Package routes knows what route configurations name, and makes the form of
// one that names nothing a proxy has not got yet. Invariant: what a running
// route may send a request to is always among what it is said to name, so
// nothing is taken away under a route.
package routes

import (
	"sync"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	"google.golang.org/protobuf/proto"

	"tollgate/api/contract"
	"tollgate/xds/release"
)

// Named is what one route configuration names.
type Named struct {
	Clusters []string
	Mentions []string // of clusters, their endpoints, policies and rule sets
}

// Mention is how a thing that routes name is told apart from all others.
func Mention(audience release.Audience, url, name string) string {
	return string(audience) + " " + url + " " + name
}

// References answers what route configurations name. Each version is looked
// into once, however many proxies run it. The zero value is ready.
type References struct {
	mu    sync.Mutex
	known map[string]Named // by version
}

// maxKnown bounds what is remembered of old versions.
const maxKnown = 4096

// Of returns what a route configuration names.
func (r *References) Of(one *release.Resource) Named {
	r.mu.Lock()
	defer r.mu.Unlock()
	if named, ok := r.known[one.Version]; ok {
		return named
	}
	if r.known == nil || len(r.known) >= maxKnown {
		r.known = map[string]Named{}
	}
	var config routev3.RouteConfiguration
	if err := proto.Unmarshal(one.Body.GetValue(), &config); err != nil {
		return Named{}
	}
	named := look(one.Audience, &config)
	r.known[one.Version] = named
	return named
}

func look(audience release.Audience, config *routev3.RouteConfiguration) Named {
	var named Named
	seen := map[string]bool{}
	add := func(url, name string) bool {
		m := Mention(audience, url, name)
		if name == "" || seen[m] {
			return false
		}
		seen[m] = true
		named.Mentions = append(named.Mentions, m)
		return true
	}
	for _, host := range config.GetVirtualHosts() {
		for _, route := range host.GetRoutes() {
			for _, cluster := range clusters(route) {
				if add(release.TypeCluster, cluster) {
					named.Clusters = append(named.Clusters, cluster)
				}
				add(release.TypeEndpoint, cluster)
			}
			add(release.TypePolicy, policy(route))
			for _, owner := range owners(route) {
				add(release.TypeRuleSet, owner)
			}
		}
	}
	return named
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
		return authz.GetCheckSettings().GetContextExtensions()[contract.KeyPolicy]
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
			if len(limit.GetActions()) == 0 {
				continue
			}
			slot := limit.GetActions()[0].GetGenericKey().GetDescriptorValue()
			if set, ok := contract.RouteSetOf(slot); ok {
				names = append(names, set)
			}
		}
	}
	return names
}
