package config

import (
	"slices"
	"strconv"
	"strings"

	"tollgate/internal/strictyaml"
	"tollgate/xds/config/syntax"
)

func (b *builder) allRoutes(files []*syntax.File, defaults syntax.Settings, g *Gateway) {
	seen := map[string]strictyaml.Pos{}
	for _, f := range files {
		for i := range f.Routes {
			r := f.Routes[i]
			r.Settings = syntax.Merge(b.merger, defaults, r.Settings)
			b.tree(&r, &f.Routes[i], "", i, seen, g)
		}
	}
	b.ties(g)
}

// tree walks a group and hands what it says to the routes inside. r is the
// route with what it inherits, own is as it is written.
func (b *builder) tree(r, own *syntax.Route, group string, i int, seen map[string]strictyaml.Pos, g *Gateway) {
	name := group + string(r.Name.V)
	path := index("routes", name, i)
	if r.Name.V != "" {
		b.unique(seen, r.Name.Pos, path, name)
	}
	if r.Routes == nil {
		g.Routes = append(g.Routes, b.route(r, own, name, path))
		return
	}
	if len(r.Routes) == 0 {
		b.fault(r.Pos, path+".routes", "is an empty group: write its routes, or remove `routes`")
	}
	for k := range r.Routes {
		inner := r.Routes[k]
		outer := *r
		outer.Routes = nil
		inner = syntax.Merge(b.merger, outer, inner)
		b.tree(&inner, &r.Routes[k], name+"/", k, seen, g)
	}
}

func (b *builder) route(r, own *syntax.Route, name, path string) Route {
	out := Route{
		Pos: Pos(own.Pos), Name: name, Priority: int(r.Priority.V), MaxBody: int64(r.MaxBody.V),
		WebSocket: r.WebSocket.V, High: r.Importance.V == "high", Forward: r.Forward.V,
	}
	for _, l := range r.Listeners.Items {
		if _, known := b.listeners[string(l.V)]; !known && l.V != "" {
			b.unknown(l.Pos, path+".listeners", "listener", string(l.V), b.names.listeners)
		}
		out.Listeners = append(out.Listeners, string(l.V))
	}
	if r.Listeners.IsSet() && len(out.Listeners) == 0 {
		b.fault(r.Listeners.Pos, path+".listeners", "is empty, so nobody could reach the route: remove it for all listeners")
	}
	out.Match = b.match(r.Match, path+".match")
	out.Auth = b.auth(r, path)
	out.Authorize = b.rules(r, out.Auth, path+".authorize")
	out.RateLimit = b.limits("route/"+name, path+".rate_limit", r.RateLimit.Items, 0)
	b.uniqueLimits(out.RateLimit, path+".rate_limit")
	b.anonymous(out, path)
	out.CORS = b.cors(r.CORS, path+".cors")
	out.Timeout = timeout(r.Timeout)
	out.Retry = b.retry(r.Retry, path+".retry")
	b.attemptsFit(r, out, path)
	out.RequestHeaders = b.headerEdit(r.RequestHeaders, path+".request_headers")
	out.ResponseHeaders = b.headerEdit(r.ResponseHeaders, path+".response_headers")
	b.target(r, own, &out, path)
	return out
}

// target is where the request goes: exactly one of three.
func (b *builder) target(r, own *syntax.Route, out *Route, path string) {
	switch {
	case r.Upstream.IsSet():
		out.Upstream = string(r.Upstream.V)
		if b.upstreams[out.Upstream] == nil && out.Upstream != "" {
			b.unknown(r.Upstream.Pos, path+".upstream", "upstream", out.Upstream, b.names.upstreams)
		}
		out.Rewrite = b.rewrite(r.Rewrite, out.Match, path+".rewrite")
		out.Mirror = b.mirror(r.Mirror, path+".mirror")
		return
	case r.Respond != nil:
		out.Respond = b.respond(r.Respond, path+".respond")
	case r.Redirect != nil:
		out.Redirect = b.redirect(r.Redirect, out.Match, path+".redirect")
	default:
		b.fault(own.Pos, path, "goes nowhere: write upstream, respond or redirect")
	}
	b.needsUpstream(own.Rewrite != nil && !own.Rewrite.Off, own.Pos, path, "rewrite")
	b.needsUpstream(own.Mirror != nil && !own.Mirror.Off, own.Pos, path, "mirror")
	b.needsUpstream(own.WebSocket.V, own.WebSocket.Pos, path, "websocket")
	b.needsUpstream(own.Retry != nil && !own.Retry.Off, own.Pos, path, "retry")
	if len(own.RateLimit.Items) > 0 {
		b.warn(own.RateLimit.Pos, path+".rate_limit", "counts nothing: only requests that go to an upstream are counted")
	}
	out.WebSocket, out.Retry, out.RateLimit = false, nil, nil
}

func (b *builder) needsUpstream(written bool, pos strictyaml.Pos, path, key string) {
	if written {
		b.fault(pos, path+"."+key, "needs an upstream: this route is answered by Envoy itself")
	}
}

func (b *builder) respond(s *syntax.Respond, path string) *Respond {
	const maxBody = 4096 // Envoy's own limit
	if len(s.Body.V) > maxBody {
		b.fault(s.Body.Pos, path+".body", "has %d bytes, at most %d are answered by Envoy itself", len(s.Body.V), maxBody)
	}
	return &Respond{Status: or(s.Status, 200, number), Body: s.Body.V, ContentType: string(s.ContentType.V)}
}

func (b *builder) redirect(s *syntax.Redirect, m Match, path string) *Redirect {
	out := &Redirect{
		Scheme: s.Scheme.V, Host: s.Host.V, Path: string(s.Path.V), Prefix: string(s.Prefix.V),
		Code: 302, StripQuery: s.StripQuery.V,
	}
	if code, err := strconv.ParseUint(s.Code.V, 10, 32); err == nil {
		out.Code = uint32(code)
	}
	if s.Host.IsSet() {
		var host syntax.Hostname
		var hostPort syntax.HostPort
		if strings.HasPrefix(out.Host, "*") || (host.UnmarshalText([]byte(out.Host)) != nil && hostPort.UnmarshalText([]byte(out.Host)) != nil) {
			b.fault(s.Host.Pos, path+".host", "%q is not a host, with or without a port", s.Host.Shown())
		}
	}
	if out.Scheme == "" && out.Host == "" && !s.Path.IsSet() && !s.Prefix.IsSet() {
		b.fault(s.Pos, path, "leads back to itself: write scheme, host, path or prefix")
	}
	var known []string
	if m.Kind == PathTemplate {
		known = syntax.Variables(m.Path)
	}
	for _, v := range syntax.Variables(out.Path) {
		if !slices.Contains(known, v) {
			b.fault(s.Path.Pos, path+".path", "{%s} is no variable of the route's match.path.template%s", v, strictyaml.Suggest(v, known))
		}
	}
	if s.Prefix.IsSet() && m.Kind != PathPrefix {
		b.fault(s.Prefix.Pos, path+".prefix", "replaces the matched prefix, but the route matches no path by prefix")
	}
	return out
}
