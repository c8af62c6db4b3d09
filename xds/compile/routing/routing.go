// Package routing turns the routes of a gateway into Envoy's. Invariant: in
// every virtual host the first Envoy route that matches a request is the one
// the language picks, and no route without a policy reaches an upstream unless
// its file says public.
package routing

import (
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previousv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"tollgate/api/contract"
	"tollgate/xds/compile/field"
	"tollgate/xds/compile/limiting"
	"tollgate/xds/compile/refusal"
	"tollgate/xds/config"
)

// Filters that routes configure.
const (
	CORSFilter           = "envoy.filters.http.cors"
	AuthzFilter          = contract.AuthzFilter
	HeaderMutationFilter = "envoy.filters.http.header_mutation"
)

// BodyFilter names the filter that bounds request bodies to so many bytes.
func BodyFilter(bytes int64) string { return "tollgate.body." + strconv.FormatInt(bytes, 10) }

// Suffixes of Envoy routes that serve a route of the file beside the one that
// bears its plain name.
const (
	suffixKeyed     = "#idempotency-key"
	suffixPreflight = "#preflight"
	suffixAllow     = "#405"
	suffixSticky    = "#sticky:"
)

// Builder makes the route configurations of one gateway.
type Builder struct {
	gw        *config.Gateway
	upstreams map[string]*config.Upstream
	policies  []string // by route; "" for public ones
	feeds     *limiting.Feeds
	// credentials are the headers that go upstream only where a route says so.
	credentials []string
	enabled     *anypb.Any // wakes a sleeping filter
	// unauthorized keeps a route from the authorization servers.
	unauthorized map[string]*anypb.Any
	// idle are the filters that only routes which name them have.
	idle map[string]*anypb.Any
	// What thousands of routes share is made once.
	bodies    map[refusal.Refusal]*corev3.SubstitutionFormatString
	otherHost []*routev3.RetryPolicy_RetryHostPredicate
}

// New prepares for gw, whose routes are bound to the named policies.
func New(gw *config.Gateway, upstreams map[string]*config.Upstream, policies []string) *Builder {
	// A filter that is in the chain and told by its own settings to do nothing
	// costs a request 5–10 µs; one kept out of the chain costs nothing (measured on
	// 1.40). Authorization is kept out by a route alone, never by what holds
	// routes: one that is not marked is asked about.
	off := field.Any(&routev3.FilterConfig{Disabled: true})
	return &Builder{
		gw: gw, upstreams: upstreams, policies: policies, feeds: limiting.NewFeeds(gw),
		credentials:  CredentialHeaders(gw),
		enabled:      field.Any(&routev3.FilterConfig{Config: &anypb.Any{}}),
		unauthorized: map[string]*anypb.Any{AuthzFilter: off},
		idle:         map[string]*anypb.Any{CORSFilter: off, limiting.DenyFilter: off, limiting.OpenFilter: off},
		bodies:       map[refusal.Refusal]*corev3.SubstitutionFormatString{},
		otherHost: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name:       "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: field.Any(&previousv3.PreviousHostsPredicate{})},
		}},
	}
}

func (b *Builder) toHTTPS(port uint16) *routev3.VirtualHost {
	action := &routev3.RedirectAction{
		SchemeRewriteSpecifier: &routev3.RedirectAction_HttpsRedirect{HttpsRedirect: true},
		ResponseCode:           routev3.RedirectAction_PERMANENT_REDIRECT,
	}
	if port != 443 {
		action.PortRedirect = uint32(port)
	}
	redirect := &routev3.Route{
		Name: "#https", Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		Action: &routev3.Route_Redirect{Redirect: action}, TypedPerFilterConfig: b.unauthorized,
	}
	return &routev3.VirtualHost{Name: "*", Domains: []string{"*"}, Routes: []*routev3.Route{redirect}}
}
