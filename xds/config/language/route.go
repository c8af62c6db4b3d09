package language

import (
	"strconv"
	"time"

	"tollgate/api/contract"
	"tollgate/xds/config"
	"tollgate/xds/config/inherit"
	"tollgate/xds/config/syntax"
)

func route(r *inherit.Route) *config.Route {
	s := r.Full
	out := &config.Route{
		Pos: config.Pos(r.Own.Pos), Name: r.Name, Priority: int(s.Priority.V), MaxBody: or(s.MaxBody, config.BodyNotWritten, func(b syntax.Bytes) int64 { return int64(b) }),
		MaxStream: or(s.MaxStream, time.Hour, optional),
		Listeners: distinct(strs(s.Listeners.Items)), Match: match(s.Match), Auth: auth(s.Auth), Authorize: rules(s.Authorize.Items),
		CORS: cors(s.CORS), Timeout: timeout(s.Timeout), High: s.Importance.V == "high", Forward: s.Forward.V,
		RequestHeaders: headerEdit(s.RequestHeaders), ResponseHeaders: headerEdit(s.ResponseHeaders),
	}
	switch {
	case s.Respond != nil:
		out.Respond = &config.Respond{Status: or(s.Respond.Status, 200, number), Body: s.Respond.Body.V, ContentType: string(s.Respond.ContentType.V)}
	case s.Redirect != nil:
		out.Redirect = redirect(s.Redirect)
	default: // what only an upstream gives a meaning
		out.Upstream = string(s.Upstream.V)
		out.RateLimit = limits(contract.RouteSet(r.Name), s.RateLimit.Items, 0)
		out.Retry = retry(s.Retry)
		out.Rewrite = rewrite(s.Rewrite)
		out.WebSocket = s.WebSocket.V
		if m := s.Mirror; m != nil && !m.Off {
			out.Mirror = &config.Mirror{Upstream: string(m.Upstream.V), Percent: or(m.Percent, 100, percent)}
		}
	}
	return out
}

func redirect(s *syntax.Redirect) *config.Redirect {
	out := &config.Redirect{
		Scheme: s.Scheme.V, Host: s.Host.V, Path: string(s.Path.V), Prefix: string(s.Prefix.V),
		Code: 302, StripQuery: s.StripQuery.V,
	}
	if code, err := strconv.ParseUint(s.Code.V, 10, 32); err == nil {
		out.Code = uint32(code)
	}
	return out
}
