package check

import (
	"net/url"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"tollgate/extauthz/policy"
)

// seen is what one pass over the headers found.
type seen struct {
	authorization, key, host string
	// How many lines there were: two that agree today are two that differ tomorrow.
	authorizations, keys, hosts int
}

// lines calls each for the wanted headers of the request, in either encoding
// that Envoy uses. Only their values are copied.
func lines(h *authv3.AttributeContext_HttpRequest, wanted func(name string) bool, each func(name, value string)) {
	if raw := h.GetHeaderMap().GetHeaders(); len(raw) > 0 {
		for _, l := range raw {
			if name := lower(l.GetKey()); wanted(name) {
				each(name, headerValue(l))
			}
		}
		return
	}
	for name, value := range h.GetHeaders() {
		if name = lower(name); wanted(name) {
			each(name, value)
		}
	}
}

func headerValue(l *corev3.HeaderValue) string {
	if raw := l.GetRawValue(); len(raw) > 0 {
		return string(raw)
	}
	return l.GetValue()
}

func lower(name string) string { return strings.ToLower(name) } // no copy if it is lower already

func scan(h *authv3.AttributeContext_HttpRequest, keyHeader string) seen {
	var s seen
	wanted := func(name string) bool {
		switch name {
		case "authorization", ":authority", "host", keyHeader:
			return true
		}
		return false
	}
	lines(h, wanted, func(name, value string) {
		switch name {
		case "authorization":
			s.authorization = value
			s.authorizations++
		case ":authority", "host":
			s.host = value
			s.hosts++
		}
		if name == keyHeader {
			s.key = value
			s.keys++
		}
	})
	return s
}

// asked is what only a refusal needs to know.
type asked struct{ requestID, contentType string }

func inquire(h *authv3.AttributeContext_HttpRequest) (out asked) {
	wanted := func(name string) bool { return name == "x-request-id" || name == "content-type" }
	lines(h, wanted, func(name, value string) {
		if name == "x-request-id" {
			out.requestID = value
		} else {
			out.contentType = value
		}
	})
	return out
}

// read turns what Envoy sent into what is decided. fault is why it cannot be:
// a request that the upstream could read differently from us.
func read(r *authv3.CheckRequest, s *seen, now time.Time) (out policy.Request, fault string) {
	h := r.GetAttributes().GetRequest().GetHttp()
	host := h.GetHost()
	if host == "" {
		host = s.host
	}
	path, query, _ := strings.Cut(h.GetPath(), "?")
	switch {
	case s.authorizations > 1 || strings.Contains(s.authorization, ","):
		return out, "more than one Authorization"
	case s.keys > 1 || strings.Contains(s.key, ","):
		return out, "more than one API key"
	case s.hosts > 1 || s.hosts == 1 && !strings.EqualFold(s.host, host) || !plainHost(host):
		return out, "the host is not one plain name"
	case !plainPath(path):
		return out, "the path can be read in several ways"
	}
	out.Method, out.Path, out.Host = h.GetMethod(), path, hostname(host)
	out.ClientIP = r.GetAttributes().GetSource().GetAddress().GetSocketAddress().GetAddress()
	out.Time = now
	out.Headers = func() map[string]string { return joined(h) }
	out.Query = func() map[string]string { return parameters(query) }
	out.Token = bearer(s.authorization)
	out.Key = s.key
	return out, ""
}

// bearer takes the token of the Bearer scheme; another scheme is not a
// credential we know. "Bearer" without a token is a bad token, not a missing one.
func bearer(authorization string) string {
	scheme, token, found := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "bearer") {
		return ""
	}
	if token = strings.TrimLeft(token, " "); !found || token == "" {
		return "-"
	}
	return token
}

func plainHost(host string) bool {
	for i := range len(host) {
		c := host[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == ':', c == '[', c == ']':
		default:
			return false
		}
	}
	return true
}

// hostname is lower case, without port and final dot.
func hostname(host string) string {
	host = lower(host)
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	return strings.TrimSuffix(host, ".")
}

// plainPath refuses what upstreams are known to read in another way than
// Envoy: path parameters, double escapes, escaped control bytes, broken
// escapes, overlong UTF-8. Envoy's first routes refuse most of it; this is the
// second guard.
func plainPath(path string) bool {
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c < 0x21, c >= 0x7f, c == ';', c == '\\', c == '#':
			return false
		case c == '%':
			value, ok := escape(path[i:])
			if !ok || value < 0x20 || value == 0x7f || value == '%' || value == 0xc0 || value == 0xc1 || value > 0xf4 {
				return false
			}
			if next, ok := escape(path[i+3:]); value == 0xe0 && ok && next < 0xa0 || value == 0xf0 && ok && next < 0x90 {
				return false
			}
			i += 2
		}
	}
	return true
}

func escape(s string) (byte, bool) {
	if len(s) < 3 || s[0] != '%' {
		return 0, false
	}
	high, ok1 := hex(s[1])
	low, ok2 := hex(s[2])
	return high<<4 | low, ok1 && ok2
}

func hex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

func joined(h *authv3.AttributeContext_HttpRequest) map[string]string {
	out := make(map[string]string, len(h.GetHeaderMap().GetHeaders())+len(h.GetHeaders()))
	wanted := func(name string) bool { return !strings.HasPrefix(name, ":") }
	lines(h, wanted, func(name, value string) {
		value = strings.ToValidUTF8(value, "\uFFFD")
		if before, twice := out[name]; twice {
			value = before + "," + value
		}
		out[name] = value
	})
	return out
}

func parameters(query string) map[string]string {
	values, _ := url.ParseQuery(query) // what cannot be read is not there
	out := make(map[string]string, len(values))
	for name, list := range values {
		out[strings.ToValidUTF8(name, "\uFFFD")] = strings.ToValidUTF8(strings.Join(list, ","), "\uFFFD")
	}
	return out
}
