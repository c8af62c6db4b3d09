package routing

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"tollgate/xds/compile/field"
	"tollgate/xds/compile/matching"
	"tollgate/xds/config"
)

// preflightConditions puts a preflight before every other route of its path.
const preflightConditions = 1 << 20

func corsPolicy(r *config.Route) *corsv3.CorsPolicy {
	c := r.CORS
	out := &corsv3.CorsPolicy{
		AllowMethods: strings.Join(corsMethods(r), ", "), AllowHeaders: strings.Join(c.Headers, ", "), ExposeHeaders: strings.Join(c.ExposeHeaders, ", "),
		ForwardNotMatchingPreflights: field.Bool(false),
	}
	for _, origin := range c.Origins {
		out.AllowOriginStringMatch = append(out.AllowOriginStringMatch, originMatcher(origin))
	}
	if c.Credentials {
		out.AllowCredentials = field.Bool(true)
	}
	if c.MaxAge > 0 {
		out.MaxAge = strconv.FormatInt(int64(c.MaxAge/time.Second), 10)
	}
	return out
}

func originMatcher(origin string) *matcherv3.StringMatcher {
	before, after, wild := strings.Cut(origin, "*")
	switch {
	case !wild:
		return field.Exact(origin)
	case origin == "*":
		return field.Pattern(".*")
	}
	return field.Pattern(regexp.QuoteMeta(before) + `[A-Za-z0-9.\-]+` + regexp.QuoteMeta(after))
}

// corsMethods are what a browser is told that it may use.
func corsMethods(r *config.Route) []string {
	switch {
	case len(r.CORS.Methods) > 0:
		return r.CORS.Methods
	case len(r.Match.Methods) > 0:
		return matching.WithHead(r.Match.Methods)
	}
	return []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}
}

// preflight takes the browser's question for a method of the route. The CORS
// filter stands before authorization and answers it, also to origins that it
// does not allow. It acts only on routes that forward (seen on 1.40), so this
// one names the upstream, which the question never reaches.
func (b *Builder) preflight(r *config.Route) *routev3.Route {
	m := matching.Of(&config.Match{Kind: r.Match.Kind, Path: r.Match.Path, Query: r.Match.Query})
	m = matching.WithHeader(m, field.HeaderPresent("origin", true))
	asked := field.HeaderPresent("access-control-request-method", true)
	if methods := matching.WithHead(r.Match.Methods); len(methods) > 0 {
		quoted := make([]string, len(methods))
		for i, method := range slices.Sorted(slices.Values(methods)) {
			quoted[i] = regexp.QuoteMeta(method)
		}
		asked = field.Header("access-control-request-method", field.Pattern(strings.Join(quoted, "|")))
	}
	action := &routev3.RouteAction{}
	b.cluster(action, b.upstreams[r.Upstream], false)
	return &routev3.Route{
		Name:                 r.Name + suffixPreflight,
		Match:                matching.WithMethods(matching.WithHeader(m, asked), []string{"OPTIONS"}),
		Action:               &routev3.Route_Route{Route: action},
		TypedPerFilterConfig: map[string]*anypb.Any{AuthzFilter: b.unauthorized[AuthzFilter], CORSFilter: field.Any(corsPolicy(r))},
	}
}
