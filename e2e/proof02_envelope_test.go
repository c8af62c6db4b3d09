package e2e_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
)

const envelopeGateway = head + `
defaults: {auth: ` + either + `}
upstreams:
  - {name: up, endpoints: ["${up}"]}
  - {name: gone, endpoints: ["${gone}"]}
  - {name: empty, discovery: {registry: nobody}}
routes:
  - {name: key, match: {path: {prefix: /key}, methods: [GET]}, upstream: up, authorize: [{permission: "a:read"}]}
  - {name: body, match: {path: {prefix: /body}}, auth: public, upstream: up, max_body: 1KiB}
  - {name: once, match: {path: {prefix: /once}}, auth: public, upstream: up, rate_limit: [{limit: 1, per: hour, message: 'Once "an" hour'}]}
  - {name: gone, match: {path: {prefix: /gone}}, auth: public, upstream: gone}
  - {name: empty, match: {path: {prefix: /empty}}, auth: public, upstream: empty}
  - {name: slow, match: {path: {prefix: /slow}}, auth: public, upstream: up, timeout: 200ms}
`

// TestProof02Envelope: every refusal is one shape, whoever refused.
func TestProof02Envelope(t *testing.T) {
	up := harness.NewUpstream(t, "up")
	up.Handle(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/slow") {
			time.Sleep(time.Second)
		}
		w.WriteHeader(http.StatusOK)
	})
	s := harness.NewStack(t, harness.Options{
		Gateway: envelopeGateway, Vars: map[string]string{"up": up.Address, "gone": harness.FreeAddress(t)},
		Keys: []harness.Key{{Name: "none", Tenant: "acme", Permissions: []string{"b:read"}}},
	})
	if a := get(t, s, "/once", nil); a.Status != okOnly {
		t.Fatalf("the first of an hour: %d %s", a.Status, a.Body)
	}
	expired := s.Issuer.Token(t, harness.With(harness.Claims("acme", "ann", "*"), map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}))
	stranger := s.Issuer.Token(t, harness.Claims("umbrella", "ann", "*"))
	tests := []struct {
		name         string
		request      traffic.Request
		status       int
		code, reason string
	}{
		{"a hostile path", traffic.Request{URL: s.URL("/key;x=1")}, 400, "BAD_REQUEST", "bad_request"},
		{"no credential", traffic.Request{URL: s.URL("/key")}, 401, "UNAUTHORIZED", "missing_credential"},
		{"two kinds", traffic.Request{URL: s.URL("/key"), Header: map[string]string{"x-api-key": s.Secrets["none"], "authorization": "Bearer x.y.z"}}, 401, "UNAUTHORIZED", "ambiguous_credentials"},
		{"no key of ours", traffic.Request{URL: s.URL("/key"), Header: withKey("tok_live_nobody")}, 401, "UNAUTHORIZED", "unknown_key"},
		{"no token of ours", traffic.Request{URL: s.URL("/key"), Header: withToken("a.b.c")}, 401, "UNAUTHORIZED", "invalid_token"},
		{"an old token", traffic.Request{URL: s.URL("/key"), Header: withToken(expired)}, 401, "UNAUTHORIZED", "expired_token"},
		{"no permission", traffic.Request{URL: s.URL("/key"), Header: withKey(s.Secrets["none"])}, 403, "FORBIDDEN", "permission_denied"},
		{"an unknown tenant", traffic.Request{URL: s.URL("/key"), Header: withToken(stranger)}, 403, "FORBIDDEN", "unknown_tenant"},
		{"an upgrade", traffic.Request{URL: s.URL("/slow"), Header: map[string]string{"connection": "upgrade", "upgrade": "websocket"}}, 403, "FORBIDDEN", "upgrade_not_allowed"},
		{"no route", traffic.Request{URL: s.URL("/nothing")}, 404, "NOT_FOUND", "no_route"},
		{"another method", traffic.Request{Method: http.MethodPost, URL: s.URL("/key"), Body: "{}"}, 405, "METHOD_NOT_ALLOWED", "method_not_allowed"},
		{"a body too large", traffic.Request{Method: http.MethodPost, URL: s.URL("/body"), Body: strings.Repeat("x", 1025)}, 413, "PAYLOAD_TOO_LARGE", "payload_too_large"},
		{"over the limit", traffic.Request{URL: s.URL("/once")}, 429, "RATE_LIMITED", "over_limit"},
		{"a dead upstream", traffic.Request{URL: s.URL("/gone")}, 503, "UNAVAILABLE", "upstream_unavailable"},
		{"an upstream without instances", traffic.Request{URL: s.URL("/empty")}, 503, "UNAVAILABLE", "upstream_unavailable"},
		{"a slow upstream", traffic.Request{URL: s.URL("/slow")}, 504, "UPSTREAM_TIMEOUT", "upstream_timeout"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := test.request.Do(t, nil)
			wantEnvelope(t, a, test.status, test.code, test.reason)
			if id := a.Header.Get("x-request-id"); id == "" || !strings.Contains(a.Body, `"request_id":"`+id+`"`) {
				t.Errorf("x-request-id %q is not that of %s", id, a.Body)
			}
			switch test.status {
			case http.StatusUnauthorized:
				if a.Header.Get("www-authenticate") == "" {
					t.Error("no WWW-Authenticate")
				}
			case http.StatusMethodNotAllowed:
				if a.Header.Get("allow") != "GET, HEAD" {
					t.Errorf("allow %q", a.Header.Get("allow"))
				}
			case http.StatusTooManyRequests:
				if a.Header.Get("retry-after") == "" || !strings.Contains(a.Body, `Once \"an\" hour`) {
					t.Errorf("retry-after %q, body %s", a.Header.Get("retry-after"), a.Body)
				}
			}
		})
	}
	t.Run("refused before it was parsed", func(t *testing.T) {
		w, err := traffic.HTTP1(s.Address(t, "http"), []byte("GET /%2e%2f/ HTTP/1.1\r\nHost: x\r\n\r\n"))
		if err != nil || w.Status != http.StatusBadRequest {
			t.Fatalf("%+v, %v", w, err)
		}
		wantEnvelope(t, traffic.Answer(w), 400, "BAD_REQUEST", "bad_request")
		if !strings.Contains(w.Body, `"request_id":null`) {
			t.Errorf("body %s", w.Body)
		}
	})
}
