package compile_test

import (
	"net/netip"
	"strings"
	"testing"

	authzv1 "tollgate/api/authz/v1"
	"tollgate/xds/compile"
	"tollgate/xds/discovery"
	"tollgate/xds/endpoint"
)

// TestDrainingInstance: an instance that is about to leave gets no new request,
// on the real Envoy, and not even when it is the last one.
func TestDrainingInstance(t *testing.T) {
	address := freePort(t)
	gw := parse(t, newPEMs(t), "gateway.yaml", []byte(strings.ReplaceAll(`
version: 1
listeners: [{name: http, address: ADDRESS, plaintext: true}]
access_log: none
defaults: {auth: public}
upstreams: [{name: orders, discovery: {registry: order}}, {name: users, discovery: {registry: user}}]
routes:
  - {name: orders, match: {path: {prefix: /orders}}, upstream: orders}
  - {name: users, match: {path: {prefix: /users}}, upstream: users}
`, "ADDRESS", address)))
	instance := func(name string, draining bool) discovery.Instance {
		return discovery.Instance{ID: name, Address: netip.MustParseAddrPort(backend(t, name)), Weight: 1, Draining: draining}
	}
	objects, _ := everything(gw, compile.Scope{ExtAuthz: []string{"127.0.0.1:1"}, RateLimit: []string{"127.0.0.1:1"}},
		endpoint.Instances{"order": {instance("leaving", true), instance("staying", false)}, "user": {instance("last", true)}})
	e := start(t, bootstrap(t, objects), address)
	for range 20 {
		if got := e.do("GET", "/orders", nil).echo(t).Name; got != "staying" {
			t.Fatalf("went to %s", got)
		}
	}
	if a := e.do("GET", "/users", nil); a.status != 503 {
		t.Errorf("the last, draining instance: %d %s", a.status, a.body)
	}
}

// TestPolicyNameSaysItAll: two policies that differ in anything have different
// names, or a route could be joined with the rules of another edition.
func TestPolicyNameSaysItAll(t *testing.T) {
	const file = `
version: 1
listeners: [{name: http, address: 127.0.0.1:8080}]
identity: {api_keys: {header: x-api-key, store: file:keys.yaml}, issuers: [{name: p, issuer: "https://p.test", audiences: [a], jwks: {file: jwks.json}, claims: {tenant: tenant}}]}
tenants: [{name: "*"}]
upstreams: [{name: a, endpoints: [127.0.0.1:1]}, {name: b, endpoints: [127.0.0.1:2]}]
routes: [{name: r, match: {path: {prefix: /}}, ROUTE}]
`
	seen := map[string]string{}
	for _, route := range []string{
		`auth: api_key, upstream: a`,
		`auth: api_key, upstream: b`,
		`auth: api_key, upstream: a, forward: true`,
		`auth: {jwt: p}, upstream: a`,
		`auth: {any_of: [api_key, {jwt: p}]}, upstream: a`,
		`auth: {all_of: [api_key, {jwt: p}]}, upstream: a`,
		`auth: api_key, upstream: a, authorize: [{permission: "x:read"}]`,
		`auth: api_key, upstream: a, authorize: [{permission: "x:write"}]`,
		`auth: api_key, upstream: a, authorize: [{permission: "x:read", methods: [GET]}]`,
		`auth: api_key, upstream: a, authorize: [{permission: "x:read", enforce: false}]`,
		`auth: api_key, upstream: a, authorize: [{permission: "x:read"}, {permission: "x:write"}]`,
		`auth: api_key, upstream: a, authorize: [{permission: "x:write"}, {permission: "x:read"}]`,
		`auth: api_key, upstream: a, authorize: [{allow: 'auth.tenant == "x"'}]`,
		`auth: api_key, upstream: a, authorize: [{permission: "x:read"}, {deny: 'auth.tenant == "x"'}]`,
		`auth: api_key, upstream: a, rate_limit: [{limit: 1, per: hour, by: ["claim:org"]}]`,
	} {
		objects, _ := compile.Compile(parse(t, newPEMs(t), "gateway.yaml", []byte(strings.ReplaceAll(file, "ROUTE", route))), compile.Scope{})
		found := 0
		for _, o := range objects {
			if p, ok := o.Message.(*authzv1.Policy); ok {
				found++
				if other, dup := seen[p.GetName()]; dup {
					t.Errorf("%s and %s are both %s", other, route, p.GetName())
				}
				seen[p.GetName()] = route
			}
		}
		if found != 1 {
			t.Errorf("%s: %d policies", route, found)
		}
	}
}
