package e2e_test

import (
	"fmt"
	"slices"
	"testing"

	"tollgate/e2e/traffic"
)

// attack is one hostile input with its one right outcome.
type attack struct {
	name  string
	group int // of the checklist: path, host, headers, mix of credentials, token; see groups

	h2     bool
	sni    string            // over TLS, under this name
	method string            // "": GET
	target string            // "": /orders/1
	host   string            // "": api.e2e.test; in HTTP/2 the :authority; "-": none
	lines  []string          // further header lines, as they are; in HTTP/2 "name: value" fields
	pseudo []traffic.Frame   // HTTP/2: all pseudo headers, in place of those of method, target and host
	raw    string            // HTTP/1: the whole request, with {credential} for the lines of a credential
	body   string            // HTTP/2: a DATA frame
	with   []string          // the credential; nil: tenant A's API key
	keep   map[string]string // headers that AZ and upstream must see, values of several lines joined by "|"

	want outcome
	bare int // the status without a credential, where it does not follow from want
	then int // of a second answer on the connection; 0: none must come
}

// outcome is what is right: refused with a status (cut: without one), or
// admitted with the same view everywhere.
type outcome struct {
	status            int
	route, path, host string
	user, kind        string
	written           string // the user in x-auth-user, where it cannot be written as it is
}

// cut is the status of a connection or a stream that ended without an answer.
const cut = 0

func refused(status int) outcome { return outcome{status: status} }

func same(route, path string) outcome {
	return outcome{status: 200, route: route, path: path, host: "api.e2e.test", user: "ann", kind: "api_key"}
}

func (o outcome) at(host string) outcome {
	o.host = host
	return o
}

// by says that the caller is known by a JWT.
func (o outcome) by(user string) outcome {
	o.user, o.kind = user, "jwt"
	return o
}

// bareStatus is what comes without a credential: what Envoy refuses stays
// refused, what we would judge is 401, and public is public.
func (a *attack) bareStatus() int {
	switch {
	case a.bare != 0:
		return a.bare
	case a.want.route == "public":
		return 200
	case a.want.status == 200 || a.want.status == 403:
		return 401
	}
	return a.want.status
}

const attackGateway = `version: 1
listeners:
  - {name: http, address: "${http}"}
  - {name: https, address: "${https}", tls: {certs: [{cert: file:edge.crt, key: file:edge.key}]}}
identity:
  issuers:
    - {name: platform, issuer: "https://auth.e2e.test", audiences: [api], jwks: {file: jwks.json}, claims: {tenant: tenant, user: sub, permissions: permissions}}
    - {name: partner, issuer: "https://partner.e2e.test", audiences: [api], jwks: {file: partner.json}, claims: {tenant: tenant, user: sub, permissions: permissions}}
  api_keys: {header: x-api-key, store: file:keys.yaml}
  roles: {admin: ["*"]}
tenants: [{name: acme}, {name: globex}]
defaults: {auth: {any_of: [{jwt: platform}, api_key]}}
upstreams:
  - {name: open, endpoints: ["${open}"]}
  - {name: orders, endpoints: ["${orders}"]}
  - {name: admin, endpoints: ["${admin}"]}
  - {name: globex, endpoints: ["${globex}"]}
routes:
  - name: api
    match: {hosts: [api.e2e.test]}
    routes:
      - {name: public, match: {path: {prefix: /public}}, auth: public, upstream: open}
      - name: orders
        match: {path: {prefix: /orders}}
        authorize:
          - {permission: "orders:read", methods: [GET, OPTIONS]}
          - {permission: "orders:write", methods: [POST]}
        upstream: orders
      - {name: files, match: {path: {prefix: /files}}, authorize: [{allow: 'request.path.startsWith("/files/" + auth.tenant + "/")'}], upstream: orders}
      - {name: named, match: {path: {prefix: /named}}, authorize: [{allow: 'request.host == "api.e2e.test"'}], upstream: orders}
      - {name: either, match: {path: {prefix: /keys}}, auth: api_key, upstream: orders}
      - {name: tokens, match: {path: {prefix: /tokens}}, auth: {jwt: platform}, upstream: orders}
      - {name: both, match: {path: {prefix: /both}}, auth: {all_of: [{jwt: platform}, api_key]}, upstream: orders}
      - {name: partner, match: {path: {prefix: /partner}}, auth: {jwt: partner}, upstream: orders}
      - {name: admin, match: {path: {prefix: /admin}}, authorize: [{permission: "admin:use"}], upstream: admin}
      - {name: globex, match: {path: {prefix: /globex}}, authorize: [{allow: 'auth.tenant == "globex"'}], upstream: globex}
  - {name: office, match: {hosts: [admin.e2e.test], path: {prefix: /}}, authorize: [{permission: "admin:use"}], upstream: admin}
  - {name: anyhost, match: {path: {prefix: /anyhost}}, upstream: orders}
`

// TestProof08Attacks: whatever a client sends, nothing without a credential
// reaches a protected upstream, and what a tenant's credential opens is one
// view, of Envoy, of ext_authz and of the upstream.
func TestProof08Attacks(t *testing.T) {
	l := newLair(t)
	attacks := slices.Concat(pathAttacks(), hostAttacks(), headerAttacks(), messageAttacks(), mixAttacks(), tokenAttacks(t, l.Issuer, l.partner))
	count := map[int]int{}
	names := map[string]bool{}
	for i := range attacks {
		a := &attacks[i]
		name := fmt.Sprintf("%d/%s", a.group, a.name)
		if names[name] {
			t.Errorf("two inputs are called %s", name)
		}
		names[name] = true
		count[a.group]++
		t.Run(name, func(t *testing.T) { l.prove(t, a) })
	}
	t.Logf("%d inputs, by group %v", len(attacks), count)
	if len(attacks) < 150 {
		t.Errorf("%d inputs, want at least 150", len(attacks))
	}
}
