package compile_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	"tollgate/xds/compile"
)

// echo answers with who it is and what it saw.
type echo struct {
	Name, Path, Host string
	Header           http.Header
}

func backend(t *testing.T, name string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-internal-secret", "1")
		w.Header().Set("x-powered-by", "go")
		_ = json.NewEncoder(w).Encode(echo{name, r.URL.RequestURI(), r.Host, r.Header})
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func (a answer) echo(t *testing.T) echo {
	t.Helper()
	var e echo
	if err := json.Unmarshal([]byte(a.body), &e); err != nil {
		t.Fatalf("status %d, %v: %s", a.status, err, a.body)
	}
	return e
}

// reason checks that a is the envelope and returns its reason.
func (a answer) reason(t *testing.T) string {
	t.Helper()
	var e struct {
		Error struct {
			Code, Reason, Message string
			Details               []string
		}
		Meta struct {
			Timestamp string
			RequestID *string `json:"request_id"`
		}
	}
	if err := json.Unmarshal([]byte(a.body), &e); err != nil {
		t.Errorf("status %d: not the envelope: %v: %q", a.status, err, a.body)
	}
	if e.Error.Code == "" || e.Error.Message == "" || e.Error.Details == nil || len(e.Meta.Timestamp) != len("2026-11-21T04:00:00.000Z") {
		t.Errorf("status %d: incomplete envelope: %s", a.status, a.body)
	}
	if ct := a.header.Get("content-type"); ct != "application/json" {
		t.Errorf("status %d: content type %q", a.status, ct)
	}
	return e.Error.Reason
}

// servers stand in for ext_authz (a bearer passes, all else is refused) and
// for the limiter (counts nothing, remembers what it was asked).
type servers struct {
	authv3.UnimplementedAuthorizationServer
	rlsv3.UnimplementedRateLimitServiceServer
	mu          sync.Mutex
	policy      string
	descriptors []string
	calls       int
}

func (s *servers) Check(_ context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.policy = r.GetAttributes().GetContextExtensions()["policy"]
	for _, h := range r.GetAttributes().GetRequest().GetHttp().GetHeaderMap().GetHeaders() {
		if h.GetKey() == "authorization" {
			metadata, _ := structpb.NewStruct(map[string]any{"tenant": "acme", "user": "u1", "plan": "pro", "credential": "c1"})
			return &authv3.CheckResponse{
				Status: &status.Status{}, DynamicMetadata: metadata,
				HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
					Headers:         []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "x-auth-token", Value: "t"}}, {Header: &corev3.HeaderValue{Key: "x-other", Value: "no"}}},
					HeadersToRemove: []string{"authorization"},
				}},
			}, nil
		}
	}
	return &authv3.CheckResponse{
		Status: &status.Status{Code: 16},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: 401},
			Headers: []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "content-type", Value: "application/json"}}},
			Body:    `{"error":{"code":"UNAUTHORIZED","reason":"from_extauthz","message":"m","details":[]},"meta":{"timestamp":"2026-11-21T04:00:00.000Z","request_id":null}}`,
		}},
	}, nil
}

func (s *servers) ShouldRateLimit(_ context.Context, r *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	s.descriptors = nil
	for _, d := range r.GetDescriptors() {
		var entries []string
		for _, e := range d.GetEntries() {
			entries = append(entries, e.GetKey()+"="+e.GetValue())
		}
		s.descriptors = append(s.descriptors, strings.Join(entries, " "))
	}
	return &rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OK}, nil
}

func (s *servers) asked() ([]string, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = 0
	return s.descriptors, calls
}

func serve(t *testing.T) (*servers, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &servers{}
	g := grpc.NewServer()
	authv3.RegisterAuthorizationServer(g, s)
	rlsv3.RegisterRateLimitServiceServer(g, s)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return s, l.Addr().String()
}

// behave runs a gateway file on the real Envoy; ADDRESS and the names of
// backends in it are replaced.
func behave(t *testing.T, yaml string, backends map[string]string, extAuthz, limiter string) *edge {
	t.Helper()
	address := freePort(t)
	replace := []string{"ADDRESS", address}
	for _, name := range slices.Sorted(maps.Keys(backends)) {
		replace = append(replace, name, backends[name])
	}
	gw := parse(t, newPEMs(t), "gateway.yaml", []byte(strings.NewReplacer(replace...).Replace(yaml)))
	objects, _ := everything(gw, compile.Scope{ExtAuthz: []string{extAuthz}, RateLimit: []string{limiter}}, nil)
	return start(t, bootstrap(t, objects), address)
}

const routed = `
version: 1
listeners: [{name: http, address: ADDRESS, plaintext: true}]
access_log: none
defaults: {auth: public}
upstreams:
  - {name: a, endpoints: [BACKEND_A]}
  - {name: b, endpoints: [BACKEND_B]}
  - {name: dead, endpoints: [127.0.0.1:1]}
  - {name: split, split: [{upstream: a, weight: 1}, {upstream: b, weight: 1}], sticky: {cookie: canary, ttl: 1h}}
  - {name: hashed, split: [{upstream: a, weight: 1}, {upstream: b, weight: 1}], sticky: {header: x-session}}
routes:
  - {name: ok, match: {path: {exact: /ok}}, respond: {status: 200, body: "ok\n"}}
  - {name: typed, match: {path: {exact: /typed}}, respond: {status: 503, body: "{}", content_type: application/problem+json}}
  - {name: wide, match: {path: {prefix: /x}}, upstream: b}
  - name: narrow
    match: {path: {prefix: /x/y}, methods: [GET, POST]}
    cors: {origins: [https://app.test], headers: [authorization], credentials: true, max_age: 10m}
    upstream: a
  - {name: split, match: {path: {prefix: /split}}, upstream: split}
  - {name: hashed, match: {path: {prefix: /hashed}}, upstream: hashed}
  - {name: small, match: {path: {prefix: /small}}, max_body: 10B, upstream: a}
  - {name: dead, match: {path: {prefix: /dead}}, upstream: dead}
  - {name: root, match: {path: {prefix: /root}}, rewrite: {prefix: /}, upstream: a}
  - {name: deep, match: {path: {prefix: /deep}}, rewrite: {prefix: /in/side}, upstream: a}
  - {name: fixed, match: {path: {prefix: /fixed}}, rewrite: {path: /one, host: inner.test}, upstream: a}
  - name: edits
    match: {path: {prefix: /edits}}
    request_headers: {set: {x-edge: "100%"}, remove: [x-debug, "x-internal-*"]}
    response_headers: {remove: [x-powered-by, "x-internal-*"]}
    upstream: a
  - {name: absent, match: {path: {exact: /q}, query: {debug: {present: false}}}, upstream: a}
  - {name: present, match: {path: {exact: /q}, query: {debug: {present: true}}}, upstream: b}
  - {name: cookie, match: {path: {exact: /c}, cookies: {group: beta}}, upstream: b}
  - {name: nocookie, match: {path: {exact: /c}}, upstream: a}
  - {name: moved, match: {path: {template: "/old/{id}/x/{n}"}}, redirect: {path: "/new/{n}/{id}", code: 301}}
  - {name: host, match: {hosts: [api.test], path: {prefix: /h}}, upstream: a}
  - {name: anyhost, match: {hosts: ["*.test"], path: {prefix: /h}}, upstream: b}
`

func TestRouting(t *testing.T) {
	e := behave(t, routed, map[string]string{"BACKEND_A": backend(t, "a"), "BACKEND_B": backend(t, "b")}, "127.0.0.1:1", "127.0.0.1:1")
	t.Run("answers of routes stay as they are", func(t *testing.T) {
		if a := e.do("GET", "/ok", nil); a.status != 200 || a.body != "ok\n" {
			t.Errorf("%+v", a)
		}
		if a := e.do("GET", "/typed", nil); a.status != 503 || a.body != "{}" || a.header.Get("content-type") != "application/problem+json" {
			t.Errorf("%+v", a)
		}
	})
	for _, test := range []struct {
		method, target string
		headers        []string
		status         int
		reason         string
	}{
		{"GET", "/none", nil, 404, "no_route"},
		{"GET", "/none;x", nil, 400, "bad_request"},
		{"GET", "/ok/%25", nil, 400, "bad_request"},
		{"GET", "/ok", []string{"host", "u@h"}, 400, "bad_request"},
		{"GET", "/ok", []string{"x_y", "1"}, 400, "bad_request"},
		{"PUT", "/x/y", nil, 405, "method_not_allowed"},
		{"GET", "/dead", nil, 503, "upstream_unavailable"},
		{"OPTIONS", "/x/y", []string{"origin", "https://app.test", "access-control-request-method", "DELETE"}, 405, "method_not_allowed"},
	} {
		t.Run(test.method+test.target, func(t *testing.T) {
			a := e.do(test.method, test.target, nil, test.headers...)
			if a.status != test.status || a.reason(t) != test.reason {
				t.Errorf("got %d %s", a.status, a.body)
			}
			if allow := a.header.Get("allow"); test.status == 405 && allow != "GET, HEAD, POST" {
				t.Errorf("allow: %q", allow)
			}
		})
	}
	t.Run("body limit", func(t *testing.T) {
		if a := e.do("POST", "/small", strings.NewReader("12345678901")); a.status != 413 || a.reason(t) != "payload_too_large" {
			t.Errorf("got %d", a.status)
		}
		if a := e.do("POST", "/small", strings.NewReader("1234567890")); a.status != 200 {
			t.Errorf("got %d %s", a.status, a.body)
		}
	})
	t.Run("preflight", func(t *testing.T) {
		a := e.do("OPTIONS", "/x/y", nil, "origin", "https://app.test", "access-control-request-method", "POST")
		if a.status != 200 || a.header.Get("access-control-allow-origin") != "https://app.test" || a.header.Get("access-control-max-age") != "600" {
			t.Errorf("%+v", a)
		}
		a = e.do("OPTIONS", "/x/y", nil, "origin", "https://evil.test", "access-control-request-method", "POST")
		if a.header.Get("access-control-allow-origin") != "" || a.status/100 != 2 {
			t.Errorf("%+v", a)
		}
	})
	t.Run("targets", func(t *testing.T) { targets(t, e) })
	t.Run("sticky", func(t *testing.T) { sticky(t, e) })
	t.Run("headers", func(t *testing.T) { headers(t, e) })
}

func targets(t *testing.T, e *edge) {
	for _, test := range []struct {
		target, name, path string
		headers            []string
	}{
		{"/x/y/z", "a", "/x/y/z", nil},
		{"/x/yz", "b", "/x/yz", nil},
		{"/root", "a", "/", nil},
		{"/root/b?q=1", "a", "/b?q=1", nil},
		{"/deep/b", "a", "/in/side/b", nil},
		{"/deep", "a", "/in/side", nil},
		{"/fixed/any?q=1", "a", "/one?q=1", nil},
		{"/q?a=1", "a", "/q?a=1", nil},
		{"/q?a=1&debug", "b", "/q?a=1&debug", nil},
		{"/c", "a", "/c", []string{"cookie", "xgroup=beta; group=betas"}},
		{"/c", "b", "/c", []string{"cookie", "x=1; group=beta; y=2"}},
		{"/h", "a", "/h", []string{"host", "API.test:99"}},
		{"/h", "b", "/h", []string{"host", "other.test"}},
	} {
		got := e.do("GET", test.target, nil, test.headers...).echo(t)
		if got.Name != test.name || got.Path != test.path {
			t.Errorf("%s %v: went to %s as %s", test.target, test.headers, got.Name, got.Path)
		}
	}
	if a := e.do("GET", "/old/7/x/9?q=1", nil); a.status != 301 || !strings.HasSuffix(a.header.Get("location"), "/new/9/7?q=1") {
		t.Errorf("redirect: %d %s", a.status, a.header.Get("location"))
	}
}

func sticky(t *testing.T, e *edge) {
	first := e.do("GET", "/split", nil)
	name, cookie := first.echo(t).Name, first.header.Get("set-cookie")
	if cookie != "canary="+name+"; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax" {
		t.Errorf("set-cookie: %q", cookie)
	}
	for range 20 {
		a := e.do("GET", "/split", nil, "cookie", "a=b; canary="+name)
		if got := a.echo(t).Name; got != name || a.header.Get("set-cookie") != "" {
			t.Fatalf("went to %s, set-cookie %q", got, a.header.Get("set-cookie"))
		}
	}
	seen := map[string]bool{}
	for i := range 30 {
		session := fmt.Sprint("session-", i)
		one, two := e.do("GET", "/hashed", nil, "x-session", session).echo(t).Name, e.do("GET", "/hashed", nil, "x-session", session).echo(t).Name
		if one != two {
			t.Fatalf("%s went to %s, then %s", session, one, two)
		}
		seen[one] = true
	}
	if len(seen) != 2 {
		t.Errorf("30 sessions went to %v", seen)
	}
}

func headers(t *testing.T, e *edge) {
	a := e.do("GET", "/edits", nil, "x-debug", "1", "x-internal-a", "1", "x-auth-user", "evil", "x-envoy-upstream-rq-timeout-ms", "1",
		"x-forwarded-for", "1.2.3.4", "x-forwarded-host", "evil", "x-tenant-id", "evil", "x-keep", "1")
	got := a.echo(t)
	for _, name := range []string{"x-debug", "x-internal-a", "x-auth-user", "x-forwarded-host", "x-tenant-id", "x-envoy-upstream-rq-timeout-ms"} {
		if v := got.Header.Get(name); v != "" {
			t.Errorf("%s: %q reached the upstream", name, v)
		}
	}
	if got.Header.Get("x-edge") != "100%" || got.Header.Get("x-keep") != "1" || strings.Contains(got.Header.Get("x-forwarded-for"), "1.2.3.4") || got.Header.Get("x-forwarded-proto") != "http" {
		t.Errorf("upstream saw %v", got.Header)
	}
	if a.header.Get("x-internal-secret") != "" || a.header.Get("x-powered-by") != "" || a.header.Get("x-request-id") == "" {
		t.Errorf("client saw %v", a.header)
	}
}

const guarded = `
version: 1
listeners: [{name: http, address: ADDRESS, plaintext: true, trusted_proxies: {from: [PROXIES], via: xff}}]
access_log: none
identity: {api_keys: {header: x-api-key, store: file:keys.yaml}}
defaults: {auth: api_key}
tenants: [{name: "*", plan: pro}]
plans: [{name: pro, rate_limit: [{limit: 10, per: minute, by: [tenant]}]}]
rate_limit: [{name: gateway, limit: 1000, per: second, by: [ip]}]
upstreams: [{name: a, endpoints: [BACKEND]}]
routes:
  - {name: open, match: {path: {prefix: /open}}, upstream: a, rate_limit: [{limit: 5, per: hour, by: ["query:q", tenant, "header:x-h", route, method]}]}
  - {name: closed, match: {path: {prefix: /closed}}, upstream: a, rate_limit: [{limit: 5, per: hour, on_error: closed}]}
  - {name: public, match: {path: {prefix: /public}}, auth: public, upstream: a}
  - {name: respond, match: {path: {exact: /respond}}, auth: public, respond: {status: 200}}
`

func TestGuards(t *testing.T) {
	s, address := serve(t)
	e := behave(t, strings.ReplaceAll(guarded, "PROXIES", "127.0.0.0/8"), map[string]string{"BACKEND": backend(t, "a")}, address, address)
	if a := e.do("GET", "/open", nil); a.status != 401 || a.reason(t) != "from_extauthz" {
		t.Errorf("%+v", a)
	}
	if _, calls := s.asked(); calls != 0 || !strings.HasPrefix(s.policy, "open@") {
		t.Errorf("policy %q, %d calls of the limiter for a refused request", s.policy, calls)
	}
	got := e.do("GET", "/open?a=1", nil, "authorization", "x", "x-forwarded-for", "6.6.6.6, 9.9.9.9, 127.0.0.2", "x-forwarded-proto", "https").echo(t)
	if got.Header.Get("x-auth-token") != "t" || got.Header.Get("authorization") != "" || got.Header.Get("x-other") != "" {
		t.Errorf("upstream saw %v", got.Header)
	}
	want := []string{
		"limit=gateway/gateway remote_address=9.9.9.9", "limit=plan/0/tenant plan=pro tenant=acme",
		"limit=route/open/0 tenant=acme route=open method=GET",
	}
	if descriptors, calls := s.asked(); calls != 1 || !slices.Equal(descriptors, want) {
		t.Errorf("%d calls, the last of\n%s", calls, strings.Join(descriptors, "\n"))
	}
	// Several lines of a header count by the first; a client that writes the
	// mark of an absent value shares no counter with those who have none.
	e.do("GET", "/open?q=(none)", nil, "authorization", "x", "x-h", "(none)", "x-h", "second")
	want = []string{"limit=gateway/gateway remote_address=127.0.0.1", "limit=plan/0/tenant plan=pro tenant=acme", "limit=route/open/0 tenant=acme route=open method=GET query:q=(none) header:x-h=(none)"}
	if descriptors, _ := s.asked(); !slices.Equal(descriptors, want) {
		t.Errorf("the last of\n%s", strings.Join(descriptors, "\n"))
	}
	e.do("GET", "/public?q=2", nil, "x-h", "v")
	if descriptors, calls := s.asked(); calls != 1 || !slices.Equal(descriptors, []string{"limit=gateway/gateway remote_address=127.0.0.1"}) {
		t.Errorf("public: %d calls, %v", calls, descriptors)
	}
	e.do("GET", "/respond", nil)
	if _, calls := s.asked(); calls != 0 {
		t.Errorf("respond: %d calls", calls)
	}
}

// TestForgottenRoute: filters are kept out of a route's chain by marks; a route
// without any mark is asked about, whatever its listener's other routes say.
func TestForgottenRoute(t *testing.T) {
	address := freePort(t)
	gw := parse(t, newPEMs(t), "gateway.yaml", []byte(strings.NewReplacer("ADDRESS", address, "BACKEND", backend(t, "a"), "PROXIES", "10.0.0.0/8").Replace(guarded)))
	objects, _ := everything(gw, compile.Scope{ExtAuthz: []string{"127.0.0.1:1"}, RateLimit: []string{"127.0.0.1:1"}}, nil)
	for _, o := range objects {
		configuration, ok := o.Message.(*routev3.RouteConfiguration)
		if !ok {
			continue
		}
		for _, host := range configuration.GetVirtualHosts() {
			for _, route := range host.GetRoutes() {
				if route.GetName() == "public" {
					route.TypedPerFilterConfig = nil
				}
			}
		}
	}
	e := start(t, bootstrap(t, objects), address)
	if a := e.do("GET", "/public", nil); a.status != 503 || a.reason(t) != "authz_unavailable" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestWithoutServers(t *testing.T) {
	_, address := serve(t)
	for _, test := range []struct {
		name, extAuthz, limiter, target string
		status                          int
		reason                          string
	}{
		{"nobody authorizes", "127.0.0.1:1", address, "/open", 503, "authz_unavailable"},
		{"nobody authorizes a public route", "127.0.0.1:1", address, "/public", 200, ""},
		{"nobody counts, open", address, "127.0.0.1:1", "/open", 200, ""},
		{"nobody counts, closed", address, "127.0.0.1:1", "/closed", 503, "limiter_unavailable"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := behave(t, strings.ReplaceAll(guarded, "PROXIES", "10.0.0.0/8"), map[string]string{"BACKEND": backend(t, "a")}, test.extAuthz, test.limiter)
			a := e.do("GET", test.target, nil, "authorization", "x", "x-forwarded-for", "9.9.9.9")
			if a.status != test.status || (test.reason != "" && a.reason(t) != test.reason) {
				t.Errorf("got %d %s", a.status, a.body)
			}
			if test.status == 200 {
				if xff := a.echo(t).Header.Get("x-forwarded-for"); strings.Contains(xff, "9.9.9.9") {
					t.Errorf("x-forwarded-for of a stranger: %s", xff)
				}
			}
		})
	}
}
