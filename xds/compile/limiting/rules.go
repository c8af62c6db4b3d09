package limiting

import (
	"fmt"
	"math"
	"slices"

	refv3 "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"

	"tollgate/api/contract"
	limitsv1 "tollgate/api/limits/v1"
	"tollgate/xds/compile/field"
	"tollgate/xds/config"
)

// RuleSets returns what our limiter counts: "gateway", "plan/<plan>",
// "route/<route>", each only if it has limits.
func RuleSets(gw *config.Gateway) []*limitsv1.RuleSet {
	out := SharedSets(gw)
	for _, r := range gw.Routes {
		if set := RouteSet(r); set != nil {
			out = append(out, set)
		}
	}
	return out
}

// SharedSets are those of the gateway and of the plans.
func SharedSets(gw *config.Gateway) []*limitsv1.RuleSet {
	var out []*limitsv1.RuleSet
	add := func(name, plan string, limits []config.Limit) {
		if len(limits) > 0 {
			out = append(out, ruleSet(name, plan, limits))
		}
	}
	add(contract.GatewaySet, "", gw.RateLimit)
	for i := range gw.Plans {
		add(contract.PlanSet(gw.Plans[i].Name), gw.Plans[i].Name, gw.Plans[i].RateLimit)
	}
	return out
}

// RouteSet is that of a route's own limits; nil where nothing is counted.
func RouteSet(r *config.Route) *limitsv1.RuleSet {
	if r.Upstream == "" || len(r.RateLimit) == 0 {
		return nil
	}
	return ruleSet(contract.RouteSet(r.Name), "", r.RateLimit)
}

func ruleSet(name, plan string, limits []config.Limit) *limitsv1.RuleSet {
	set := &limitsv1.RuleSet{Name: name}
	for place := range limits {
		set.Rules = append(set.Rules, rule(&limits[place], plan, place))
	}
	return set
}

func rule(l *config.Limit, plan string, place int) *limitsv1.Rule {
	r := &limitsv1.Rule{
		Id: l.ID, Slot: l.ID, Plan: plan, Limit: l.Limit, Window: field.Duration(l.Window), Unit: l.Unit,
		Algorithm: limitsv1.Rule_FIXED, Burst: l.Burst, Shadow: l.Shadow, Message: l.Message,
	}
	if plan != "" {
		r.Slot = contract.PlanSlot(place, l.By)
	}
	for _, word := range l.By {
		r.By = append(r.By, entryKey(word))
	}
	if l.Algorithm == config.GCRA {
		r.Algorithm = limitsv1.Rule_GCRA
	}
	switch l.OnError {
	case config.OnErrorOpen:
		r.OnError = limitsv1.Rule_OPEN
	case config.OnErrorClosed:
		r.OnError = limitsv1.Rule_CLOSED
	case config.OnErrorLocal:
		r.OnError = limitsv1.Rule_LOCAL
	}
	return r
}

// entryKey is the descriptor entry that a word of `by` counts.
func entryKey(word string) string {
	if word == "ip" {
		return contract.AddressKey
	}
	return word
}

// Reference is the same for envoyproxy/ratelimit, as far as it can count it;
// a warning names every limit that it cannot, or counts otherwise.
func Reference(gw *config.Gateway) (*refv3.RateLimitConfig, []string) {
	out := &refv3.RateLimitConfig{Name: contract.LimitDomain, Domain: contract.LimitDomain}
	var warnings []string
	roots := map[string]*refv3.RateLimitDescriptor{} // by slot: plans share one
	add := func(l *config.Limit, plan, slot string) {
		policy, why := referencePolicy(l)
		if policy == nil {
			warnings = append(warnings, fmt.Sprintf("limit %s: left out of the reference rate-limit server's config: %s", l.ID, why))
			return
		}
		if slices.Contains(l.By, "ip") {
			warnings = append(warnings, fmt.Sprintf("limit %s: the reference rate-limit server counts every IPv6 address by itself, our limiter its /64: "+
				"over IPv6 a client can have this limit as often as it likes there", l.ID))
		}
		root := roots[slot]
		if root == nil {
			root = &refv3.RateLimitDescriptor{Key: contract.SlotKey, Value: slot}
			roots[slot] = root
			out.Descriptors = append(out.Descriptors, root)
		}
		node := root
		if plan != "" {
			node = &refv3.RateLimitDescriptor{Key: "plan", Value: plan}
			root.Descriptors = append(root.Descriptors, node)
		}
		grow(node, ordered(l.By), policy, l.Shadow)
	}
	for i := range gw.RateLimit {
		add(&gw.RateLimit[i], "", gw.RateLimit[i].ID)
	}
	for i := range gw.Plans {
		for place := range gw.Plans[i].RateLimit {
			l := &gw.Plans[i].RateLimit[place]
			add(l, gw.Plans[i].Name, contract.PlanSlot(place, l.By))
		}
	}
	for i := range gw.Routes {
		if gw.Routes[i].Upstream == "" {
			continue
		}
		for j := range gw.Routes[i].RateLimit {
			add(&gw.Routes[i].RateLimit[j], "", gw.Routes[i].RateLimit[j].ID)
		}
	}
	return out, warnings
}

// grow hangs one node a word under node, with the limit on every node whose
// remaining words may all be missing from a descriptor, and further branches for
// descriptors that lack some of them.
func grow(node *refv3.RateLimitDescriptor, by []string, policy *refv3.RateLimitPolicy, shadow bool) {
	for i, word := range by {
		child := &refv3.RateLimitDescriptor{Key: entryKey(word)}
		node.Descriptors = append(node.Descriptors, child)
		grow(child, by[i+1:], policy, shadow)
		if !optional(word) {
			return
		}
	}
	node.RateLimit, node.ShadowMode = policy, shadow
}

func referencePolicy(l *config.Limit) (policy *refv3.RateLimitPolicy, why string) {
	unit, ok := map[string]refv3.RateLimitUnit{
		"second": refv3.RateLimitUnit_SECOND, "minute": refv3.RateLimitUnit_MINUTE, "hour": refv3.RateLimitUnit_HOUR,
		"day": refv3.RateLimitUnit_DAY,
	}[l.Unit]
	switch {
	case l.Algorithm != config.Fixed:
		return nil, "it counts fixed windows only"
	case l.Unit == "week", l.Unit == "month":
		return nil, fmt.Sprintf("its %s is not the calendar's", l.Unit)
	case !ok:
		return nil, fmt.Sprintf("it has no window of %s", l.Window)
	case l.Limit > math.MaxUint32:
		return nil, fmt.Sprintf("it cannot count to %d", l.Limit)
	}
	return &refv3.RateLimitPolicy{Unit: unit, RequestsPerUnit: uint32(l.Limit)}, ""
}
