package routing

import (
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	authzfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"tollgate/api/contract"
	"tollgate/xds/compile/bounds"
	"tollgate/xds/compile/field"
	"tollgate/xds/compile/headers"
	"tollgate/xds/compile/matching"
	"tollgate/xds/config"
	"tollgate/xds/release"
)

// entry is an Envoy route and its place among those of a virtual host.
type entry struct {
	rank  rank
	route *routev3.Route // or, of a Memory:
	kept  *kept
	from  *config.Route
	refs  []release.Ref
}

// entries are the Envoy routes that serve a route of the file: one, or more
// where its methods differ in timeout or retries, its split keeps clients by
// cookie, or browsers may ask first.
func (b *Builder) entries(i int, secure bool) []*entry {
	r := b.gw.Routes[i]
	base := routev3.Route{
		TypedPerFilterConfig: b.perFilter(i),
		RequestHeadersToAdd:  headers.Additions(r.RequestHeaders), RequestHeadersToRemove: append(headers.Removals(r.RequestHeaders), b.withheld(r)...),
		ResponseHeadersToAdd: headers.Additions(r.ResponseHeaders), ResponseHeadersToRemove: headers.Removals(r.ResponseHeaders),
	}
	var routes []*routev3.Route
	switch {
	case r.Respond != nil:
		routes = []*routev3.Route{b.respond(r, &base)}
	case r.Redirect != nil:
		routes = []*routev3.Route{b.redirect(r, &base)}
	default:
		routes = b.forward(r, &base, secure)
	}
	place := rankOf(r)
	out := make([]*entry, 0, len(routes)+1)
	if r.CORS != nil && r.Upstream != "" {
		first := place
		first.conditions, first.seq = len(r.Match.Query)+preflightConditions, -1
		asked := b.preflight(r)
		out = append(out, &entry{rank: first, route: asked, from: r, refs: refs(asked, "", "")})
	}
	rules := ""
	if r.Upstream != "" && len(r.RateLimit) > 0 {
		rules = contract.RouteSet(r.Name)
	}
	for seq, route := range routes {
		place.seq = seq
		out = append(out, &entry{rank: place, route: route, from: r, refs: refs(route, b.policies[i], rules)})
	}
	return out
}

// named copies what all Envoy routes of a route share.
func named(base *routev3.Route, name string, match *routev3.RouteMatch) *routev3.Route {
	return &routev3.Route{
		Name: name, Match: match, TypedPerFilterConfig: base.GetTypedPerFilterConfig(),
		RequestHeadersToAdd: base.GetRequestHeadersToAdd(), RequestHeadersToRemove: base.GetRequestHeadersToRemove(),
		ResponseHeadersToAdd: base.GetResponseHeadersToAdd(), ResponseHeadersToRemove: base.GetResponseHeadersToRemove(),
	}
}

// perFilter binds a route to its policy, its limits and its bounds.
func (b *Builder) perFilter(i int) map[string]*anypb.Any {
	r := b.gw.Routes[i]
	out := map[string]*anypb.Any{AuthzFilter: b.unauthorized[AuthzFilter]}
	if r.Auth.Mode != config.AuthPublic {
		out[AuthzFilter] = field.Any(&authzfilterv3.ExtAuthzPerRoute{Override: &authzfilterv3.ExtAuthzPerRoute_CheckSettings{
			CheckSettings: &authzfilterv3.CheckSettings{
				ContextExtensions: map[string]string{contract.KeyPolicy: b.policies[i]}, DisableRequestBodyBuffering: true,
			},
		}})
	}
	if filter, typed := b.feeds.PerRoute(r); filter != "" {
		out[filter] = typed
	}
	// The default is awake in the chain: most routes say nothing of it.
	if size := bounds.MaxBody(r, b.upstreams); size != config.DefaultMaxBody && r.Upstream != "" {
		out[BodyFilter(config.DefaultMaxBody)] = b.unauthorized[AuthzFilter]
		if size > 0 {
			out[BodyFilter(size)] = b.enabled
		}
	}
	if b.passesTrailers(r) {
		out[TrailerFilter] = b.enabled
	}
	if r.CORS != nil {
		out[CORSFilter] = field.Any(corsPolicy(r))
	}
	if m := headers.PrefixRemovals(r); m != nil {
		out[HeaderMutationFilter] = field.Any(m)
	}
	return out
}

func (b *Builder) respond(r *config.Route, base *routev3.Route) *routev3.Route {
	out := named(base, r.Name, matching.WithMethods(matching.Of(&r.Match), matching.WithHead(r.Match.Methods)))
	action := &routev3.DirectResponseAction{Status: r.Respond.Status}
	if r.Respond.Body != "" {
		action.Body = field.Inline(r.Respond.Body)
	}
	if r.Respond.ContentType != "" {
		out.ResponseHeadersToAdd = append(slices.Clone(out.GetResponseHeadersToAdd()), field.SetHeader("content-type", r.Respond.ContentType))
	}
	out.Action = &routev3.Route_DirectResponse{DirectResponse: action}
	return out
}

func (b *Builder) redirect(r *config.Route, base *routev3.Route) *routev3.Route {
	out := named(base, r.Name, matching.WithMethods(matching.Of(&r.Match), matching.WithHead(r.Match.Methods)))
	action := &routev3.RedirectAction{HostRedirect: r.Redirect.Host, StripQuery: r.Redirect.StripQuery, ResponseCode: redirectCode(r.Redirect.Code)}
	if r.Redirect.Scheme != "" {
		action.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: r.Redirect.Scheme}
	}
	switch {
	case r.Redirect.Prefix != "":
		action.PathRewriteSpecifier = &routev3.RedirectAction_RegexRewrite{RegexRewrite: matching.ReplacePrefix(&r.Match, r.Redirect.Prefix)}
	case r.Redirect.Path != "" && r.Match.Kind == config.PathTemplate && strings.Contains(r.Redirect.Path, "{"):
		action.PathRewriteSpecifier = &routev3.RedirectAction_RegexRewrite{RegexRewrite: matching.FillTemplate(r.Match.Path, r.Redirect.Path)}
	case r.Redirect.Path != "":
		action.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: r.Redirect.Path}
	}
	out.Action = &routev3.Route_Redirect{Redirect: action}
	return out
}

func redirectCode(code uint32) routev3.RedirectAction_RedirectResponseCode {
	switch code {
	case 302:
		return routev3.RedirectAction_FOUND
	case 303:
		return routev3.RedirectAction_SEE_OTHER
	case 307:
		return routev3.RedirectAction_TEMPORARY_REDIRECT
	case 308:
		return routev3.RedirectAction_PERMANENT_REDIRECT
	}
	return routev3.RedirectAction_MOVED_PERMANENTLY
}

// forward makes the Envoy routes of a route that goes to an upstream.
func (b *Builder) forward(r *config.Route, base *routev3.Route, secure bool) []*routev3.Route {
	matched := matching.Of(&r.Match)
	target := b.upstreams[r.Upstream]
	var out []*routev3.Route
	for _, v := range variants(r) {
		m := matching.WithMethods(matched, v.methods)
		if v.keyed {
			m = matching.WithHeader(m, field.HeaderPresent("idempotency-key", true))
		}
		name := r.Name + v.suffix
		if target.Sticky != nil && target.Sticky.Cookie != "" {
			for _, member := range target.Split {
				if member.Weight == 0 {
					continue
				}
				held := config.Condition{Name: target.Sticky.Cookie, Op: config.Equals, Value: member.Upstream}
				route := named(base, name+suffixSticky+member.Upstream, matching.WithHeader(m, matching.Cookie(held)))
				action := b.action(r, &v)
				action.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: member.Upstream}
				route.Action = &routev3.Route_Route{Route: action}
				out = append(out, route)
			}
		}
		route := named(base, name, m)
		action := b.action(r, &v)
		b.cluster(action, target, secure)
		route.Action = &routev3.Route_Route{Route: action}
		out = append(out, route)
	}
	return out
}

// cluster picks the upstream, or a member of the split.
func (b *Builder) cluster(action *routev3.RouteAction, target *config.Upstream, secure bool) {
	if len(target.Split) == 0 {
		action.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: target.Name}
		return
	}
	weighted := WeightedClusters(target)
	if s := target.Sticky; s != nil && s.Header != "" {
		weighted.RandomValueSpecifier = &routev3.WeightedCluster_UseHashPolicy{UseHashPolicy: field.Bool(true)}
	} else if s != nil {
		for _, c := range weighted.GetClusters() {
			c.ResponseHeadersToAdd = []*corev3.HeaderValueOption{field.AddHeader("set-cookie", stickyCookie(s, c.GetName(), secure))}
		}
	}
	action.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: weighted}
}

// WeightedClusters are the members of a split that take anybody.
func WeightedClusters(u *config.Upstream) *routev3.WeightedCluster {
	out := &routev3.WeightedCluster{}
	for _, m := range u.Split {
		if m.Weight > 0 {
			out.Clusters = append(out.Clusters, &routev3.WeightedCluster_ClusterWeight{Name: m.Upstream, Weight: field.Uint(m.Weight)})
		}
	}
	return out
}
