// Package limiting turns the limits of a gateway into what the limiter counts
// and into the descriptors with which routes feed it. Invariant: every rule has
// exactly one descriptor in every route that it covers, and a request never
// drops a descriptor for want of a value.
package limiting

import (
	"maps"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"tollgate/api/contract"
	"tollgate/xds/compile/field"
	"tollgate/xds/config"
)

// The two rate-limit filters of a listener; a route feeds exactly one of them.
const (
	DenyFilter = "tollgate.ratelimit.deny" // refuses when no limiter answers
	OpenFilter = "tollgate.ratelimit.open" // admits when no limiter answers
)

// Feeds makes the descriptors of routes.
type Feeds struct {
	gateway []config.Limit
	slots   []slot // of all plans, sorted by name
	// What all routes share, public and not, and its encoding for routes without
	// limits of their own; nil when a limit counts by route.
	sharedPublic, sharedPrivate []*routev3.RateLimit
	public, private             *anypb.Any
	gatewayClosed               bool
	plansClosed                 bool
}

// slot is a place that the limits of several plans share, because a
// descriptor is made before the plan of the request is known.
type slot struct {
	name string
	by   []string
}

// NewFeeds prepares the descriptors of a gateway.
func NewFeeds(gw *config.Gateway) *Feeds {
	f := &Feeds{gateway: gw.RateLimit, gatewayClosed: anyClosed(gw.RateLimit)}
	slots := map[string]slot{}
	for i := range gw.Plans {
		f.plansClosed = f.plansClosed || anyClosed(gw.Plans[i].RateLimit)
		for place, l := range gw.Plans[i].RateLimit {
			s := slot{name: contract.PlanSlot(place, l.By), by: l.By}
			slots[s.name] = s
		}
	}
	for _, name := range slices.Sorted(maps.Keys(slots)) {
		f.slots = append(f.slots, slots[name])
	}
	byRoute := func(by []string) bool { return slices.Contains(by, "route") }
	if !slices.ContainsFunc(gw.RateLimit, func(l config.Limit) bool { return byRoute(l.By) }) &&
		!slices.ContainsFunc(f.slots, func(s slot) bool { return byRoute(s.by) }) {
		f.sharedPublic, f.sharedPrivate = f.common("", true), f.common("", false)
		f.public, f.private = pack(f.sharedPublic), pack(f.sharedPrivate)
	}
	return f
}

func anyClosed(limits []config.Limit) bool {
	return slices.ContainsFunc(limits, func(l config.Limit) bool { return l.OnError == config.OnErrorClosed })
}

func pack(limits []*routev3.RateLimit) *anypb.Any {
	return field.Any(&ratelimitv3.RateLimitPerRoute{RateLimits: limits})
}

// PerRoute returns the filter that a route feeds and its configuration there;
// "" when nothing limits the route. What Envoy answers itself is not counted.
func (f *Feeds) PerRoute(r *config.Route) (filter string, typed *anypb.Any) {
	public := r.Auth.Mode == config.AuthPublic
	if r.Upstream == "" || len(f.gateway)+len(r.RateLimit) == 0 && (public || len(f.slots) == 0) {
		return "", nil
	}
	filter = OpenFilter
	if f.gatewayClosed || anyClosed(r.RateLimit) || f.plansClosed && !public {
		filter = DenyFilter
	}
	shared := f.private
	if public {
		shared = f.public
	}
	if shared != nil && len(r.RateLimit) == 0 {
		return filter, shared
	}
	return filter, pack(f.descriptors(r))
}

// descriptors lists gateway, plans, route.
func (f *Feeds) descriptors(r *config.Route) []*routev3.RateLimit {
	public := r.Auth.Mode == config.AuthPublic
	shared := f.sharedPrivate
	if public {
		shared = f.sharedPublic
	}
	if f.public == nil {
		shared = f.common(r.Name, public)
	}
	out := slices.Clip(shared)
	for i := range r.RateLimit {
		out = append(out, descriptor(r.Name, r.RateLimit[i].ID, false, r.RateLimit[i].By))
	}
	return out
}

// common lists gateway and plans. A public route has no tenant, hence no plan.
func (f *Feeds) common(route string, public bool) []*routev3.RateLimit {
	var out []*routev3.RateLimit
	for i := range f.gateway {
		out = append(out, descriptor(route, f.gateway[i].ID, false, f.gateway[i].By))
	}
	if public {
		return out
	}
	for _, s := range f.slots {
		out = append(out, descriptor(route, s.name, true, s.by))
	}
	return out
}

func descriptor(route, slot string, plan bool, by []string) *routev3.RateLimit {
	actions := []*routev3.RateLimit_Action{literal(contract.SlotKey, slot)}
	if plan {
		actions = append(actions, metadata("plan"))
	}
	for _, word := range ordered(by) {
		actions = append(actions, action(route, word))
	}
	return &routev3.RateLimit{Actions: actions}
}

// ordered puts what can be missing from a descriptor last: the reference server
// matches entries in order.
func ordered(by []string) []string {
	out := slices.Clone(by)
	slices.SortStableFunc(out, func(a, b string) int {
		rank := func(s string) int {
			if optional(s) {
				return 1
			}
			return 0
		}
		return rank(a) - rank(b)
	})
	return out
}

// optional reports whether a descriptor has no entry for a word when the request
// has no such value. A client could write any mark that stood there.
func optional(word string) bool {
	return strings.HasPrefix(word, "query:") || strings.HasPrefix(word, "header:")
}

func action(route, word string) *routev3.RateLimit_Action {
	kind, name, _ := strings.Cut(word, ":")
	switch kind {
	case "ip":
		return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_RemoteAddress_{RemoteAddress: &routev3.RateLimit_Action_RemoteAddress{}}}
	case "route":
		return literal("route", route)
	case "method":
		return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_RequestHeaders_{
			RequestHeaders: &routev3.RateLimit_Action_RequestHeaders{HeaderName: ":method", DescriptorKey: "method"},
		}}
	case "header":
		// Of several lines of a header, Envoy takes the first.
		return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_RequestHeaders_{
			RequestHeaders: &routev3.RateLimit_Action_RequestHeaders{HeaderName: strings.ToLower(name), DescriptorKey: word, SkipIfAbsent: true},
		}}
	case "query":
		return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_QueryParameters_{
			QueryParameters: &routev3.RateLimit_Action_QueryParameters{QueryParameterName: name, DescriptorKey: word, SkipIfAbsent: true},
		}}
	}
	return metadata(word) // tenant, user, credential, claim:x
}

func literal(key, value string) *routev3.RateLimit_Action {
	return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_GenericKey_{
		GenericKey: &routev3.RateLimit_Action_GenericKey{DescriptorKey: key, DescriptorValue: value},
	}}
}

func metadata(key string) *routev3.RateLimit_Action {
	return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_Metadata{Metadata: &routev3.RateLimit_Action_MetaData{
		DescriptorKey: key, DefaultValue: contract.None,
		MetadataKey: &metadatav3.MetadataKey{Key: contract.AuthzFilter, Path: []*metadatav3.MetadataKey_PathSegment{
			{Segment: &metadatav3.MetadataKey_PathSegment_Key{Key: key}},
		}},
	}}}
}
