package e2e_test

import (
	"strings"

	"tollgate/e2e/traffic"
)

// hostAttacks is group 2: one host, whoever says it.
func hostAttacks() []attack {
	const any = "/anyhost"
	return []attack{
		{name: "upper case", group: 2, host: "API.E2E.TEST", want: same("orders", "/orders/1").at("API.E2E.TEST")},
		{name: "upper case (h2)", group: 2, h2: true, host: "Api.E2e.Test", want: same("orders", "/orders/1").at("Api.E2e.Test")},
		{name: "trailing dot", group: 2, host: "api.e2e.test.", want: same("orders", "/orders/1")},
		{name: "trailing dot (h2)", group: 2, h2: true, host: "api.e2e.test.", want: same("orders", "/orders/1")},
		{name: "two trailing dots", group: 2, host: "api.e2e.test..", want: refused(400)},
		{name: "port", group: 2, host: "api.e2e.test:443", want: same("orders", "/orders/1")},
		{name: "port (h2)", group: 2, h2: true, host: "api.e2e.test:443", want: same("orders", "/orders/1")},
		{name: "odd port", group: 2, host: "api.e2e.test:99999", want: same("orders", "/orders/1")},
		{name: "dot and port", group: 2, host: "api.e2e.test.:80", want: same("orders", "/orders/1")},
		{name: "port that is none", group: 2, host: "api.e2e.test:80a", want: refused(400)},
		{name: "two ports on any host", group: 2, target: any, host: "admin.e2e.test:80:90", want: refused(400)},
		{name: "two ports on any host (h2)", group: 2, h2: true, target: any, host: "admin.e2e.test:80:90", want: refused(400)},
		{name: "port and colon on any host", group: 2, target: any, host: "admin.e2e.test:80:", want: refused(400)},
		{name: "dot, port and colon on any host", group: 2, target: any, host: "admin.e2e.test.:80:", want: refused(400)},
		{name: "two dots on any host", group: 2, target: any, host: "admin.e2e.test..", want: refused(400)},
		{name: "name in brackets on any host", group: 2, target: any, host: "[admin.e2e.test]:80", want: refused(400)},
		{name: "name in brackets on any host (h2)", group: 2, h2: true, target: any, host: "[admin.e2e.test]:80", want: refused(400)},
		{name: "bracket after the name on any host", group: 2, target: any, host: "admin.e2e.test]", want: refused(400)},
		{name: "port that is none on any host", group: 2, target: any, host: "admin.e2e.test:x", want: refused(400)},
		{name: "absolute form with two ports on any host", group: 2, target: "http://admin.e2e.test:80:90/anyhost", want: refused(400)},
		{name: "upper case of the office", group: 2, host: "ADMIN.E2E.TEST", want: refused(403)},
		{name: "dot and port of the office", group: 2, host: "admin.e2e.test.:8080", want: refused(403)},
		{name: "a rule that reads the host", group: 2, target: "/named", host: "API.e2e.test:80", want: same("named", "/named").at("API.e2e.test")},
		{name: "unknown host", group: 2, host: "evil.test", want: refused(404)},
		{name: "unknown host (h2)", group: 2, h2: true, host: "evil.test", want: refused(404)},
		{name: "longer host", group: 2, host: "api.e2e.test.evil.test", want: refused(404)},
		{name: "prefixed host", group: 2, host: "evil-api.e2e.test", want: refused(404)},
		{name: "our address as host", group: 2, host: "127.0.0.1", want: refused(404)},
		{name: "any host", group: 2, target: any, host: "whatever.test", want: same("anyhost", any).at("whatever.test")},
		{name: "address of IPv6 on any host", group: 2, target: any, host: "[::1]:80", want: same("anyhost", any).at("[::1]")},
		{name: "two Host lines", group: 2, lines: []string{"Host: admin.e2e.test"}, want: refused(400)},
		{name: "the same Host twice", group: 2, lines: []string{"Host: api.e2e.test"}, want: refused(400)},
		{name: "two Host lines on any host", group: 2, target: any, lines: []string{"Host: admin.e2e.test"}, want: refused(400)},
		{name: "comma in Host on any host", group: 2, target: any, host: "a.test,b.test", want: refused(400)},
		{name: "comma and space in Host", group: 2, host: "api.e2e.test, admin.e2e.test", want: refused(400)},
		{name: "no Host", group: 2, host: "-", want: refused(400)},
		{name: "empty Host", group: 2, raw: "GET /orders/1 HTTP/1.1\r\nHost:\r\n{credential}\r\n", want: refused(400)},
		{name: "empty Host on any host", group: 2, raw: "GET /anyhost HTTP/1.1\r\nHost:\r\n{credential}\r\n", want: refused(400)},
		{name: "userinfo", group: 2, host: "admin@api.e2e.test", want: refused(400)},
		{name: "userinfo on any host", group: 2, target: any, host: "u:p@any.test", want: refused(400)},
		{name: "userinfo (h2)", group: 2, h2: true, target: any, host: "u@any.test", want: refused(cut)},
		{name: "slash in Host", group: 2, host: "api.e2e.test/admin", want: refused(400)},
		{name: "underscore in Host", group: 2, target: any, host: "a_b.test", want: refused(400)},
		{name: "space in Host", group: 2, target: any, host: "a b", want: refused(400)},
		{name: "high byte in Host", group: 2, target: any, host: "\xffa.test", want: refused(400)},
		{name: "percent in Host", group: 2, target: any, host: "a%2eb.test", want: refused(400)},
		{name: "star in Host", group: 2, target: any, host: "*", want: refused(400)},
		{name: "absolute form against Host", group: 2, target: "http://api.e2e.test/orders/1", host: "admin.e2e.test", want: same("orders", "/orders/1")},
		{name: "absolute form of the office against Host", group: 2, target: "http://admin.e2e.test/public/x", host: "api.e2e.test", want: refused(403)},
		{name: "host field against :authority (h2)", group: 2, h2: true, lines: []string{"host: admin.e2e.test"}, want: same("orders", "/orders/1")},
		{name: "office in :authority, public in host (h2)", group: 2, h2: true, target: "/public/x", host: "admin.e2e.test", lines: []string{"host: api.e2e.test"}, want: refused(403)},
		{name: "host field alone (h2)", group: 2, h2: true, host: "-", lines: []string{"host: api.e2e.test"}, want: same("orders", "/orders/1")},
		{name: "no host at all (h2)", group: 2, h2: true, host: "-", want: refused(cut)},
		{name: "two :authority (h2)", group: 2, h2: true, want: refused(cut), pseudo: []traffic.Frame{
			{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/orders/1"}, {Name: ":authority", Value: "api.e2e.test"}, {Name: ":authority", Value: "admin.e2e.test"},
		}},
		{name: "empty :authority (h2)", group: 2, h2: true, want: refused(cut), pseudo: []traffic.Frame{
			{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/anyhost"}, {Name: ":authority", Value: ""},
		}},
		{name: "SNI of the office", group: 2, sni: "admin.e2e.test", want: same("orders", "/orders/1")},
		{name: "SNI of the office (h2)", group: 2, h2: true, sni: "admin.e2e.test", want: same("orders", "/orders/1")},
		{name: "SNI of the API, Host of the office", group: 2, sni: "api.e2e.test", host: "admin.e2e.test", target: "/public/x", want: refused(403)},
		{name: "SNI, :authority and host field differ (h2)", group: 2, h2: true, sni: "other.test", lines: []string{"host: admin.e2e.test"}, want: same("orders", "/orders/1")},
	}
}

// headerAttacks is group 3: no header of a client speaks for us.
func headerAttacks() []attack {
	orders := same("orders", "/orders/1")
	var all []attack
	for _, name := range []string{
		"x-auth-token", "x-auth-tenant", "x-auth-user", "x-auth-kind", "x-auth-request-user", "X-AUTH-TENANT", "x-tenant-id", "x-user-id",
		"x-real-ip", "forwarded", "true-client-ip", "cf-connecting-ip", "x-client-ip", "x-original-uri", "x-original-method", "x-original-host", "x-host", "remote-user", "x-remote-user",
		"proxy-authorization", "x-http-method", "x-method-override", "x-forwarded-user", "x-request-id",
		"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-forwarded-client-cert", "x-original-url", "x-rewrite-url", "x-http-method-override",
		"x-envoy-original-path", "x-envoy-original-host", "x-envoy-external-address", "x-envoy-internal", "x-envoy-auth-partial-body", "x-envoy-auth-failure-mode-allowed",
		"x-envoy-auth-headers-to-remove", "x-envoy-upstream-rq-timeout-ms", "x-envoy-decorator-operation", "x-envoy-retry-on", "x-envoy-force-trace",
	} {
		all = append(all,
			attack{name: "client sends " + name, group: 3, lines: []string{name + ": evil"}, want: orders},
			attack{name: "client sends " + strings.ToLower(name) + " twice (h2)", group: 3, h2: true, lines: []string{strings.ToLower(name) + ": evil", strings.ToLower(name) + ": 0,evil"}, want: orders},
		)
		if strings.ToLower(name) != name {
			all = all[:len(all)-1]
		}
	}
	line := func(name string, want outcome, lines ...string) {
		all = append(all, attack{name: name, group: 3, lines: lines, want: want})
	}
	line("tenant of another", orders, "x-auth-tenant: globex", "x-tenant-id: globex")
	line("method override to DELETE", orders, "x-http-method-override: DELETE", "x-method-override: DELETE")
	line("client address of ours", orders, "x-forwarded-for: 10.0.0.1", "x-real-ip: 10.0.0.1", "forwarded: for=10.0.0.1")
	line("client address of loopback", orders, "x-forwarded-for: 127.0.0.1, 127.0.0.1")
	line("timeout of one millisecond", orders, "x-envoy-upstream-rq-timeout-ms: 0", "x-envoy-expected-rq-timeout-ms: 1")
	line("underscore for a dash", refused(400), "x_auth_user: evil")
	line("underscore in the name of the key header", refused(400), "x_api_key: evil")
	line("bearer and a comma", refused(400), "Authorization: Bearer a,Bearer b")
	line("two Authorization lines", refused(400), "Authorization: Bearer a", "Authorization: Bearer b")
	line("two schemes", refused(400), "Authorization: Basic YTpi, Bearer a")
	line("two schemes in two lines", refused(400), "Authorization: Basic YTpi", "Authorization: Bearer a")
	line("another scheme beside the key", orders, "Authorization: Basic ZXZpbDpldmls")
	line("empty Authorization beside the key", orders, "Authorization:")
	line("blank Authorization beside the key", orders, "Authorization:    \t ")
	line("bearer without a token", refused(401), "Authorization: Bearer")
	line("honest header twice", orders, "x-dup: 1", "x-dup: 2")
	all[len(all)-1].keep = map[string]string{"x-dup": "1|2"}
	line("high bytes in a value", orders, "x-note: a\xffb\x80")
	all[len(all)-1].keep = map[string]string{"x-note": "a\xffb\x80"}
	line("continued line", orders, "x-note: a", " b")
	all[len(all)-1].keep = map[string]string{"x-note": "a b"}
	line("empty value", orders, "x-note:")
	line("value of 8 KiB", orders, "x-note: "+strings.Repeat("a", 8<<10))
	line("value of 64 KiB", refused(431), "x-note: "+strings.Repeat("a", 64<<10))
	line("NUL in a value", refused(400), "x-note: a\x00b")
	line("lonely return in a value is dropped", orders, "x-note: a\rx-auth-user: evil")
	all[len(all)-1].keep = map[string]string{"x-note": "ax-auth-user: evil"}
	line("delete in a value", refused(400), "x-note: a\x7fb")
	line("space before the colon", refused(400), "x-note : a")
	line("no colon", refused(400), "x-note")
	line("no name", refused(400), ": a")
	line("name with a space", refused(400), "x note: a")
	line("101 headers", refused(431), strings.Split(strings.TrimSuffix(strings.Repeat("x-a: 1\n", 101), "\n"), "\n")...)
	line("Connection hides a header", orders, "Connection: x-hidden", "x-hidden: 1")
	line("Connection hides what we set", orders, "Connection: x-auth-token, x-auth-tenant, x-auth-user")
	all = append(all,
		attack{name: "Connection hides the credential", group: 3, lines: []string{"Connection: close, x-api-key"}, want: refused(401)},
		attack{name: "Connection hides the token", group: 3, lines: []string{"Connection: close, authorization"}, with: []string{"Authorization: Bearer {token}"}, want: refused(401)},
		attack{name: "DELETE without the permission", group: 3, method: "DELETE", want: refused(403)},
		attack{name: "an unknown method", group: 3, method: "EVIL", want: refused(400)},
		attack{name: "TRACE", group: 3, method: "TRACE", want: refused(403)},
		attack{name: "lower case method", group: 3, method: "get", want: refused(400)},
		attack{name: "lower case method (h2)", group: 3, h2: true, method: "delete", want: refused(400)},
		attack{name: "mixed case method of a public path (h2)", group: 3, h2: true, method: "Delete", target: "/public/x", want: refused(400)},
		attack{name: "lower case bearer", group: 3, with: []string{"Authorization: bearer {token}"}, want: orders.by("bob")},
		attack{name: "upper case bearer", group: 3, with: []string{"AUTHORIZATION: BEARER {token}"}, want: orders.by("bob")},
		attack{name: "two spaces behind bearer", group: 3, with: []string{"Authorization: Bearer  {token}"}, want: orders.by("bob")},
		attack{name: "tab behind bearer", group: 3, with: []string{"Authorization: Bearer\t{token}"}, want: refused(401)},
		attack{name: "continued Authorization", group: 3, with: []string{"Authorization: Bearer", " {token}"}, want: orders.by("bob")},
		attack{name: "space around the token", group: 3, with: []string{"Authorization:   Bearer {token}   "}, want: orders.by("bob")},
		attack{name: "token and more", group: 3, with: []string{"Authorization: Bearer {token} {tokenB}"}, want: refused(401)},
		attack{name: "quoted token", group: 3, with: []string{`Authorization: Bearer "{token}"`}, want: refused(401)},
		attack{name: "token without a scheme", group: 3, with: []string{"Authorization: {token}"}, want: refused(401)},
		attack{name: "token under another scheme", group: 3, with: []string{"Authorization: Token {token}"}, want: refused(401)},
		attack{name: "key with space around", group: 3, with: []string{"X-API-Key:   {key}  "}, want: orders},
		attack{name: "key in other case", group: 3, with: []string{"x-api-key: TOK{key}"}, want: refused(401)},
		attack{name: "key with a tail", group: 3, with: []string{"x-api-key: {key}x"}, want: refused(401)},
		attack{name: "two keys by a comma", group: 3, with: []string{"x-api-key: {key},{keyB}"}, want: refused(400), bare: 401},
		attack{name: "a broken key before the key", group: 3, lines: []string{"x-api-key: {keyB}x"}, want: refused(400), bare: 401},
		attack{name: "the empty key before the key", group: 3, lines: []string{"x-api-key:"}, want: refused(400), bare: 401},
		attack{name: "the same key twice", group: 3, with: []string{"x-api-key: {key}", "x-api-key: {key}"}, want: refused(400), bare: 401},
		attack{name: "keys of two tenants", group: 3, with: []string{"x-api-key: {key}", "X-Api-Key: {keyB}"}, want: refused(400), bare: 401},
		attack{name: "keys of two tenants (h2)", group: 3, h2: true, with: []string{"x-api-key: {key}", "x-api-key: {root}"}, want: refused(400), bare: 401},
		attack{name: "tokens of two tenants", group: 3, with: []string{"Authorization: Bearer {token}", "Authorization: Bearer {tokenB}"}, want: refused(400), bare: 401},
		attack{name: "tokens of two tenants (h2)", group: 3, h2: true, with: []string{"authorization: Bearer {token}", "authorization: Bearer {tokenB}"}, want: refused(400), bare: 401},
	)
	return all
}
