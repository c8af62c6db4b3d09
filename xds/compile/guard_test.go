package compile_test

import (
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"tollgate/api/contract"
	"tollgate/internal/oneview"
	"tollgate/xds/release"
)

const watched = `
version: 1
listeners: [{name: http, address: ADDRESS, plaintext: true, trusted_proxies: {from: [PROXIES], via: xff}}]
access_log: none
identity: {api_keys: {header: x-api-key, store: file:keys.yaml}}
tenants: [{name: "*"}]
upstreams: [{name: a, endpoints: [BACKEND]}]
routes:
  - {name: custom, match: {path: {exact: "/v1/things:purge"}}, auth: api_key, upstream: a}
  - {name: public, match: {path: {prefix: /}}, auth: public, cors: {origins: ["https://app.test"]}, upstream: a}
  - {name: cafe, match: {path: {prefix: "/caf%c3%a9"}}, auth: api_key, upstream: a}
`

// TestOneViewOnTheListener (S3, S13): what an upstream could read in another way
// than Envoy is 400 with our envelope, on public routes too, and nobody is
// asked; honest requests that look odd pass.
func TestOneViewOnTheListener(t *testing.T) {
	s, address := serve(t)
	e := behave(t, strings.ReplaceAll(watched, "PROXIES", "10.0.0.0/8"), map[string]string{"BACKEND": backend(t, "a")}, address, address)
	many := strings.Repeat("&", oneview.MaxParameters)
	for _, test := range []struct {
		method, target string
		headers        []string
		status         int
	}{
		{"GET", "/v1/things:purge", nil, 401},
		{"GET", "/v1/things%3Apurge", nil, 400},
		{"GET", "/v1/things%3apurge", nil, 400},
		{"GET", "/x/%40me", nil, 400},
		{"GET", "/x/%24%26", nil, 400},
		{"GET", "/x/%ff", nil, 400},
		{"GET", "/x/%0a", nil, 400},
		{"GET", "/x;y", nil, 400},
		{"GET", "/x/[1]", nil, 400},
		{"GET", "/x?a=%zz", nil, 400},
		{"GET", "/x?a;b", nil, 400},
		{"GET", "/x?a=%ff", nil, 400},
		{"GET", "/x?" + many, nil, 400},
		{"OPTIONS", "/x/%3A", []string{"origin", "https://app.test", "access-control-request-method", "GET"}, 400},
		{"GET", "/x", []string{"host", "a,b"}, 400},
		{"GET", "/x", []string{"host", "a.test:80:"}, 400},
		{"GET", "/x", []string{"host", "a.test:80:90"}, 400},
		{"GET", "/x", []string{"host", "a.test.:80:"}, 400},
		{"GET", "/x", []string{"host", "a.test.."}, 400},
		{"GET", "/x", []string{"host", "a.test..:80"}, 400},
		{"GET", "/x", []string{"host", "[a.test]:80"}, 400},
		{"GET", "/x", []string{"host", "a.test]"}, 400},
		{"GET", "/x", []string{"host", "a.test:99999999999"}, 400},
		{"GET", "/x", []string{"host", "A.test.:80"}, 200},
		{"GET", "/x", []string{"host", "[2001:db8::1]:8080"}, 200},
		{"GET", "/caf%C3%A9/x", nil, 401},
		{"GET", "/caf%c3%a9/x", nil, 401},
		{"GET", "/x?" + many[1:], nil, 200},
		{"GET", "/x/a%20b/@me:!$&'()*+,=%E2%82%AC%5B1%5D", nil, 200},
		{"GET", `/x?f[n]={1}|^%00%3B%25&b=%E2%82%AC+c/?d`, nil, 200},
	} {
		a := e.do(test.method, test.target, nil, test.headers...)
		if a.status != test.status {
			t.Errorf("%s %.60s %v: %d, want %d: %s", test.method, test.target, test.headers, a.status, test.status, a.body)
		}
		if test.status == http.StatusBadRequest && a.reason(t) != "bad_request" {
			t.Errorf("%s %.60s: %s", test.method, test.target, a.body)
		}
		s.mu.Lock()
		if asked := s.policy != ""; asked != (test.status == 401) {
			t.Errorf("%s %.60s: ext_authz was asked: %v", test.method, test.target, asked)
		}
		s.policy = ""
		s.mu.Unlock()
	}
	a := e.do("POST", "/x;y", nil, "content-type", "application/grpc")
	if a.status != 200 || a.header.Get("grpc-status") != "13" || !strings.HasPrefix(a.header.Get("grpc-message"), "bad_request: ") {
		t.Errorf("gRPC: %d %v", a.status, a.header)
	}
}

// TestStripped (S13, S14 g): what only the gateway may say is gone; a trusted
// proxy may say where the client was, and no more.
func TestStripped(t *testing.T) {
	var headers []string
	for _, name := range contract.StrippedNames() {
		headers = append(headers, name, "evil")
	}
	for _, prefix := range contract.StrippedPrefixes() {
		headers = append(headers, prefix+"user", "evil", prefix+"f", "evil", prefix+"forx", "evil", prefix, "evil")
	}
	for _, name := range contract.ForwardedByProxies() {
		headers = append(headers, name, "evil")
	}
	for _, test := range []struct {
		proxies string
		kept    []string
	}{
		{"10.0.0.0/8", nil},
		{"127.0.0.0/8", contract.ForwardedByProxies()},
	} {
		e := behave(t, strings.ReplaceAll(watched, "PROXIES", test.proxies), map[string]string{"BACKEND": backend(t, "a")}, "127.0.0.1:1", "127.0.0.1:1")
		got := e.do("GET", "/x", nil, headers...).echo(t).Header
		kept := map[string]bool{}
		for _, name := range test.kept {
			kept[http.CanonicalHeaderKey(name)] = true
		}
		for name, values := range got {
			if evil := strings.Contains(strings.Join(values, ","), "evil"); evil && !kept[name] {
				t.Errorf("from %s: %s: %q reached the upstream", test.proxies, name, values)
			}
		}
		for name := range kept {
			if !strings.Contains(got.Get(name), "evil") && name != "X-Forwarded-Proto" {
				t.Errorf("from %s: %s: %q, a trusted proxy said something else", test.proxies, name, got.Get(name))
			}
		}
	}
}

// TestRoutesLeaveTheFilterChain: an edit of routes sends no listener, which
// would drain its clients.
func TestRoutesLeaveTheFilterChain(t *testing.T) {
	p := newPEMs(t)
	listener := func(routes string) []byte {
		gw := parse(t, p, "gateway.yaml", []byte(`
version: 1
listeners: [{name: http, address: 127.0.0.1:8080}]
upstreams: [{name: a, endpoints: [127.0.0.1:1]}]
identity: {api_keys: {header: x-api-key, store: file:keys.yaml}}
tenants: [{name: "*"}]
routes:
`+routes))
		objects, _ := everything(gw, scope(), instances())
		for _, o := range objects {
			if o.Type == release.TypeListener && o.Audience == release.Edge {
				data, _ := proto.MarshalOptions{Deterministic: true}.Marshal(o.Message)
				return data
			}
		}
		t.Fatal("no listener")
		return nil
	}
	plain := listener("  - {name: a, match: {path: {prefix: /}}, auth: public, upstream: a}\n")
	conditions := listener(`  - {name: a, match: {path: {prefix: /}}, auth: public, upstream: a}
  - {name: b, match: {hosts: [b.test], path: {prefix: /}, query: {mode: admin}, headers: {x-mode: admin}, cookies: {mode: admin}}, auth: api_key, authorize: [{allow: 'request.query["q"] == "1" && request.headers["x-q"] == "1"'}], upstream: a}
`)
	if string(plain) != string(conditions) {
		t.Error("routes change the listener")
	}
}

const conditioned = `
version: 1
listeners: [{name: http, address: ADDRESS, plaintext: true}]
access_log: none
identity: {api_keys: {header: x-api-key, store: file:keys.yaml}}
tenants: [{name: "*"}]
upstreams: [{name: a, endpoints: [BACKEND]}]
routes:
  - {name: admin, match: {path: {prefix: /x}, query: {admin: "1"}}, auth: api_key, upstream: a}
  - {name: filter, match: {path: {prefix: /x}, query: {"filter[role]": {prefix: "ro ot"}}}, auth: api_key, upstream: a}
  - {name: user, match: {path: {prefix: /x}, query: {user: {regex: "ro+t"}}}, auth: api_key, upstream: a}
  - {name: debug, match: {path: {prefix: /x}, query: {debug: {present: true}}}, auth: api_key, upstream: a}
  - {name: header, match: {path: {prefix: /x}, headers: {x-mode: admin}}, auth: api_key, upstream: a}
  - {name: cookie, match: {path: {prefix: /x}, cookies: {mode: admin}}, auth: api_key, upstream: a}
  - {name: folded, match: {path: {prefix: /x}, cookies: {m_x: admin}}, auth: api_key, upstream: a}
  - {name: lax, match: {path: {prefix: /x}}, auth: public, upstream: a}
  - {name: other, match: {hosts: [other.test], path: {prefix: /y}}, auth: public, upstream: a}
  - {name: not, match: {path: {prefix: /not}, query: {lax: {present: false}}}, auth: api_key, upstream: a}
  - {name: lax2, match: {path: {prefix: /not}}, auth: public, upstream: a}
`

// TestConditionsAreBoundaries (S4): a condition on the query, a header or a
// cookie parts a strict route from a lax one for every spelling; 401 says that
// the strict one took the request, 200 the lax one.
func TestConditionsAreBoundaries(t *testing.T) {
	s, address := serve(t)
	e := behave(t, conditioned, map[string]string{"BACKEND": backend(t, "a")}, address, address)
	for _, test := range []struct {
		target  string
		headers []string
		status  int
	}{
		{"/x", nil, 200},
		{"/x?admin=0", nil, 200},
		{"/x?admin=11&x=admin=1", nil, 200},
		{"/x?a=1&a=2&b", nil, 200}, // twice, but nobody looks
		{"/x?admin=1", nil, 401},
		{"/x?a&admin=1&b", nil, 401},
		{"/x?%61dmin=1", nil, 401},
		{"/x?admin=%31", nil, 401},
		{"/x?%61%64%6D%69%6e=%31", nil, 401},
		{"/x?admin=0&admin=1", nil, 400},
		{"/x?admin=1&admin=0", nil, 400},
		{"/x?%61dmin=1&admin=0", nil, 400},
		{"/x?admin&admin", nil, 400},
		{"/x?a=1;admin=1", nil, 400},
		{"/x?admin=1%zz", nil, 400},
		{"/x?+admin=1", nil, 400}, // PHP drops the space
		{"/x?admin[]=1", nil, 400},
		{"/x?admin%5B%5D=1", nil, 400},
		{"/x?admin%00=1", nil, 400},
		{"/x?[admin]=1", nil, 400}, // qs
		{"/x?%5Badmin%5D=1", nil, 400},
		{"/x?[admin][]=1", nil, 400},
		{"/x?admin=0&[admin]=1", nil, 400},
		{"/x?admin]=1", nil, 400}, // Rack 2
		{"/x?.admin=1", nil, 400},
		{"/x?admin.0=1", nil, 400},
		{"/x?!admin=1", nil, 400},  // Spring
		{"/x?Admin=1", nil, 400},   // ASP.NET
		{"/x??admin=1", nil, 400},  // URLSearchParams
		{"/x?a[]dmin=1", nil, 400}, // Fiber
		{"/x?admin=0&%41dmin=1", nil, 400},
		{"/x?administrator=1&[other]=1&admin.x=1&other[]=1&a.b[c].d=1&a[b]=c]d", nil, 200},
		{"/x?[filter][role]=root", nil, 400},
		{"/x?filter.role=root", nil, 400},
		{"/x?filter[role]x=root", nil, 400},
		{"/x?filter[role][]=root", nil, 400},
		{"/x?filter['role']=root", nil, 400},
		{"/x?filter[roles]=root&filters[role]=root", nil, 200},
		{"/x?filter[role]=ro+ot1", nil, 401},
		{"/x?filter%5Brole%5D=ro%20ot", nil, 401},
		{"/x?filter%5Brole%5D=root&filter%5Bname%5D=a", nil, 200},
		{"/x?user=roooot", nil, 401},
		{"/x?user=ann", nil, 200},
		{"/x?user=ann%2Fbob", nil, 400}, // a pattern sees no escapes
		{"/x?user=ro%6ft", nil, 400},
		{"/x?%75ser=root", nil, 400},
		{"/x?debug", nil, 401},
		{"/x?%64ebug=", nil, 401},
		{"/not", nil, 401},
		{"/not?lax", nil, 200},
		{"/not?%6cax=1", nil, 200},
		{"/not?lax&lax", nil, 400},
		{"/x", []string{"x-mode", "admin"}, 401},
		{"/x", []string{"x-mode", "user"}, 200},
		{"/x", []string{"x-mode", "a,b"}, 200},
		{"/x", []string{"x-mode", "admin", "x-mode", "user"}, 400},
		{"/x", []string{"x-mode", "user", "x-mode", "admin"}, 400},
		{"/x", []string{"x-mode", "", "x-mode", "admin"}, 400},
		{"/x", []string{"accept", "a", "accept", "b"}, 200},
		{"/x", []string{"cookie", "mode=admin"}, 401},
		{"/x", []string{"cookie", "a=1; mode=admin; b=2"}, 401},
		{"/x", []string{"cookie", "mode =admin"}, 400},
		{"/x", []string{"cookie", "a=1; mode\t=admin"}, 400},
		{"/x", []string{"cookie", "mode= admin"}, 400},
		{"/x", []string{"cookie", `mode="ad\155in"`}, 400},
		{"/x", []string{"cookie", "mode=%61dmin; a=1"}, 400},
		{"/x", []string{"cookie", "other=%61; mode=user"}, 200},
		{"/x", []string{"cookie", "mode=; a=%61"}, 200},
		{"/x", []string{"cookie", "mode=user; mode=admin"}, 400},
		{"/x", []string{"cookie", "mode=admin;mode=user"}, 400},
		{"/x", []string{"cookie", "a=1", "cookie", "mode=admin"}, 400},
		{"/x", []string{"cookie", "a=1; xmode=admin"}, 200},
		{"/x", []string{"cookie", "m_x=admin"}, 401},
		{"/x", []string{"cookie", "m_x=user; mode=user"}, 200},
		{"/x", []string{"cookie", "m.x=admin"}, 400}, // PHP
		{"/x", []string{"cookie", "m x=admin"}, 400},
		{"/x", []string{"cookie", "m[x=admin"}, 400},
		{"/x", []string{"cookie", "m_x[]=admin"}, 400},
		{"/x", []string{"cookie", "m%5Fx=admin"}, 400},
		{"/x", []string{"cookie", "m_x=user; m.x=admin"}, 400},
		{"/x", []string{"cookie", "a=1,m_x=admin"}, 400},
		{"/x", []string{"cookie", "a=1 m_x=admin"}, 400}, // http.cookies
		{"/x", []string{"cookie", "M_X=admin"}, 400},     // ASP.NET
		{"/x", []string{"cookie", "a=1; m_x"}, 400},
		{"/x", []string{"cookie", "m-x=admin; a=m_x; m[x]=1; mm_x=1; b=dark m_x; c"}, 200},
		// Where nobody looks, nothing is refused.
		{"/y?admin=1&admin=0", []string{"host", "other.test"}, 400}, // the routes of every host are this one's too
	} {
		s.mu.Lock()
		s.policy = ""
		s.mu.Unlock()
		a := e.do("GET", test.target, nil, test.headers...)
		if a.status != test.status {
			t.Errorf("%s %v: %d, want %d: %s", test.target, test.headers, a.status, test.status, a.body)
		}
		if test.status == 400 && a.reason(t) != "bad_request" {
			t.Errorf("%s %v: %s", test.target, test.headers, a.body)
		}
		s.mu.Lock()
		if asked := s.policy != ""; asked != (test.status == 401) {
			t.Errorf("%s %v: ext_authz was asked: %v", test.target, test.headers, asked)
		}
		s.mu.Unlock()
	}
}

// TestLongNames: Envoy takes the guards of the longest names that a condition
// may have, of the characters that have most spellings.
func TestLongNames(t *testing.T) {
	long := strings.Repeat("k_", 32)
	e := behave(t, strings.Replace(conditioned, "routes:\n", `routes:
  - {name: long, match: {path: {prefix: /x}, query: {`+long+`: "1", "`+strings.Repeat("f[s]", 16)+`": "1"}, cookies: {`+long+long+`: "1"}}, auth: api_key, upstream: a}
`, 1), map[string]string{"BACKEND": backend(t, "a")}, "127.0.0.1:1", "127.0.0.1:1")
	for target, want := range map[string]int{"/x?" + long[1:] + "=1": 200, "/x?" + strings.ToUpper(long) + "=1": 400, "/x?" + long + "&" + long: 400} {
		if a := e.do("GET", target, nil); a.status != want {
			t.Errorf("%s: %d, want %d: %s", target, a.status, want, a.body)
		}
	}
	if a := e.do("GET", "/x", nil, "cookie", strings.ReplaceAll(long+long, "_", ".")+"=1"); a.status != 400 {
		t.Errorf("a cookie: %d: %s", a.status, a.body)
	}
}
