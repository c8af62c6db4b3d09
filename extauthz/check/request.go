package check

import (
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"tollgate/api/contract"
	"tollgate/extauthz/policy"
	"tollgate/internal/celenv"
	"tollgate/internal/oneview"
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
	wanted := func(name string) bool { return name == contract.HeaderRequestID || name == "content-type" }
	lines(h, wanted, func(name, value string) {
		if name == contract.HeaderRequestID {
			out.requestID = value
		} else {
			out.contentType = value
		}
	})
	return out
}

// read turns what Envoy sent into what is decided by rules that look at such
// names. fault is why it cannot be: a request that the upstream could read
// differently from us. Envoy's guards refuse most of it; this is the second one.
func read(r *authv3.CheckRequest, s *seen, looks celenv.Looks, now time.Time) (out policy.Request, fault string) {
	h := r.GetAttributes().GetRequest().GetHttp()
	host := h.GetHost()
	if host == "" {
		host = s.host
	}
	target, err := oneview.Parse(h.GetPath())
	switch {
	case s.authorizations > 1 || strings.Contains(s.authorization, ","):
		return out, "more than one Authorization"
	case s.keys > 1 || strings.Contains(s.key, ","):
		return out, "more than one API key"
	case s.hosts > 1 || s.hosts == 1 && !strings.EqualFold(s.host, host) || !oneview.Host(host):
		return out, "the host is not one plain name"
	case !plainMethod(h.GetMethod()):
		return out, "the method is not in upper case"
	case err != nil:
		return out, err.Error()
	}
	headers, query, fault := named(h, &target, looks)
	if fault != "" {
		return out, fault
	}
	out.Method, out.Path, out.Segments, out.Host = h.GetMethod(), target.Path, target.Segments, lower(host)
	out.ClientIP = r.GetAttributes().GetSource().GetAddress().GetSocketAddress().GetAddress()
	out.Time = now
	out.Headers = func() map[string]string { return headers }
	out.Query = func() map[string]string { return query }
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

// plainMethod is oneview.MethodPattern.
func plainMethod(method string) bool {
	for i := range len(method) {
		if c := method[i]; c != '-' && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return method != ""
}
