package config

import (
	"strconv"

	"tollgate/internal/strictyaml"
	"tollgate/xds/config/check"
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
			b.unknown(l, path+".listeners", "listener", b.names.listeners)
		}
		out.Listeners = append(out.Listeners, string(l.V))
	}
	if r.Listeners.IsSet() && len(out.Listeners) == 0 {
		b.fault(r.Listeners.Pos, path+".listeners", "is empty, so nobody could reach the route: remove it for all listeners")
	}
	check.Match(b.fault, r.Match, path+".match")
	out.Match = match(r.Match)
	out.Auth = b.auth(r, path)
	out.Authorize = b.rules(r, out.Auth, path+".authorize")
	out.RateLimit = b.limits("route/"+name, path+".rate_limit", r.RateLimit.Items, 0)
	b.uniqueLimits(out.RateLimit, path+".rate_limit")
	b.anonymous(out, path)
	check.CORS(b.fault, r.CORS, path+".cors")
	out.CORS = cors(r.CORS)
	out.Timeout = timeout(r.Timeout)
	check.Retry(b.fault, r.Retry, path+".retry")
	out.Retry = retry(r.Retry)
	b.attemptsFit(r, out, path)
	check.HeaderEdit(b.fault, r.RequestHeaders, path+".request_headers")
	check.HeaderEdit(b.fault, r.ResponseHeaders, path+".response_headers")
	out.RequestHeaders, out.ResponseHeaders = headerEdit(r.RequestHeaders), headerEdit(r.ResponseHeaders)
	b.target(r, own, &out, path)
	return out
}

// target is where the request goes: exactly one of three.
func (b *builder) target(r, own *syntax.Route, out *Route, path string) {
	switch {
	case r.Upstream.IsSet():
		out.Upstream = string(r.Upstream.V)
		if b.upstreams[out.Upstream] == nil && out.Upstream != "" {
			b.unknown(r.Upstream, path+".upstream", "upstream", b.names.upstreams)
		}
		check.Rewrite(b.fault, r.Rewrite, r.Match, path+".rewrite")
		out.Rewrite = rewrite(r.Rewrite)
		out.Mirror = b.mirror(r.Mirror, path+".mirror")
		return
	case r.Respond != nil:
		check.Respond(b.fault, r.Respond, path+".respond")
		out.Respond = &Respond{Status: or(r.Respond.Status, 200, number), Body: r.Respond.Body.V, ContentType: string(r.Respond.ContentType.V)}
	case r.Redirect != nil:
		check.Redirect(b.fault, r.Redirect, r.Match, path+".redirect")
		out.Redirect = redirect(r.Redirect)
	default:
		b.fault(own.Pos, path, "goes nowhere: write upstream, respond or redirect")
	}
	check.Local(b.fault, own, path)
	if len(own.RateLimit.Items) > 0 {
		b.warn(own.RateLimit.Pos, path+".rate_limit", "counts nothing: only requests that go to an upstream are counted")
	}
	out.WebSocket, out.Retry, out.RateLimit = false, nil, nil
}

func redirect(s *syntax.Redirect) *Redirect {
	out := &Redirect{
		Scheme: s.Scheme.V, Host: s.Host.V, Path: string(s.Path.V), Prefix: string(s.Prefix.V),
		Code: 302, StripQuery: s.StripQuery.V,
	}
	if code, err := strconv.ParseUint(s.Code.V, 10, 32); err == nil {
		out.Code = uint32(code)
	}
	return out
}
