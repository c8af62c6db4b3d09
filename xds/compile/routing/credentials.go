package routing

import (
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"tollgate/api/contract"
	"tollgate/xds/compile/field"
	"tollgate/xds/config"
)

// TrailerFilter names the filter that keeps what identifies a caller out of
// trailers. It sleeps but on routes whose upstream is sent trailers.
const TrailerFilter = "tollgate.trailers"

// CredentialHeaders are the headers that callers show credentials in.
func CredentialHeaders(gw *config.Gateway) []string {
	out := []string{"authorization"}
	if keys := gw.Identity.APIKeys; keys != nil {
		out = append(out, keys.Header)
	}
	return out
}

// withheld are the credentials that the upstream of a route must not see. The
// route itself removes them, since public ones ask no authorization server.
func (b *Builder) withheld(r *config.Route) []string {
	if r.Forward || r.Upstream == "" {
		return nil
	}
	return b.credentials
}

// mirrorPolicy copies requests without anything the mirror could use at the
// primary: it gets no credential, and an identity token for itself alone.
func (b *Builder) mirrorPolicy(r *config.Route) *routev3.RouteAction_RequestMirrorPolicy {
	out := &routev3.RouteAction_RequestMirrorPolicy{Cluster: r.Mirror.Upstream, RuntimeFraction: field.RuntimePercent(r.Mirror.Percent)}
	for _, name := range append([]string{contract.HeaderToken}, b.credentials...) {
		out.RequestHeadersMutations = append(out.RequestHeadersMutations, &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Remove{Remove: name}})
	}
	if r.Auth.Mode != config.AuthPublic {
		out.RequestHeadersMutations = append(out.RequestHeadersMutations, &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Append{
			Append: &corev3.HeaderValueOption{
				Header:       &corev3.HeaderValue{Key: contract.HeaderToken, Value: "%DYNAMIC_METADATA(" + AuthzFilter + ":" + contract.KeyMirrorToken + ")%"},
				AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
			},
		}})
	}
	return out
}

// passesTrailers reports whether anybody behind a route is sent trailers:
// Envoy drops those of requests to HTTP/1.1 servers.
func (b *Builder) passesTrailers(r *config.Route) bool {
	names := []string{r.Upstream}
	if r.Mirror != nil {
		names = append(names, r.Mirror.Upstream)
	}
	for _, name := range names {
		u := b.upstreams[name]
		if u == nil {
			continue
		}
		if len(u.Split) == 0 && u.Protocol != config.HTTP1 {
			return true
		}
		for _, m := range u.Split {
			if b.upstreams[m.Upstream].Protocol != config.HTTP1 {
				return true
			}
		}
	}
	return false
}
