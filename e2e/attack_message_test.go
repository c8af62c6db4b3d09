package e2e_test

import "tollgate/e2e/traffic"

// messageAttacks is the rest of the table of what Envoy was seen to do: bodies
// and frames that hide a second request or break a rule of the protocol. They
// count as group 6.
func messageAttacks() []attack {
	const (
		head   = "POST /orders/1 HTTP/1.1\r\nHost: api.e2e.test\r\n{credential}"
		hidden = "GET /admin/hidden HTTP/1.1\r\nHost: api.e2e.test\r\n\r\n"
	)
	orders := same("orders", "/orders/1")
	raw := func(name, text string, want outcome) attack {
		return attack{name: name, group: 6, raw: text, want: want}
	}
	field := func(name string, want outcome, fields ...traffic.Frame) attack {
		pseudo := []traffic.Frame{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/orders/1"}, {Name: ":authority", Value: "api.e2e.test"}}
		return attack{name: name, group: 6, h2: true, pseudo: append(pseudo, fields...), want: want}
	}
	return []attack{
		raw("length and chunks", head+"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+hidden, refused(400)),
		raw("chunks and length", head+"Transfer-Encoding: chunked\r\nContent-Length: 60\r\n\r\n0\r\n\r\n"+hidden, refused(400)),
		raw("two lengths", head+"Content-Length: 0\r\nContent-Length: 60\r\n\r\n"+hidden, refused(400)),
		raw("two lengths in one line", head+"Content-Length: 0, 60\r\n\r\n"+hidden, refused(400)),
		raw("negative length", head+"Content-Length: -1\r\n\r\n"+hidden, refused(400)),
		raw("length with a sign", head+"Content-Length: +0\r\n\r\n"+hidden, refused(400)),
		raw("length in hex", head+"Content-Length: 0x0\r\n\r\n"+hidden, refused(400)),
		raw("huge length", head+"Content-Length: 99999999999999999999\r\n\r\n"+hidden, refused(400)),
		raw("identity encoding", head+"Transfer-Encoding: identity\r\n\r\n"+hidden, refused(501)),
		raw("unknown encoding", head+"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"+hidden, refused(501)),
		raw("two encodings", head+"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"+hidden, refused(501)),
		raw("chunked twice", head+"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"+hidden, refused(501)),
		raw("space before the colon of the encoding", head+"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"+hidden, refused(400)),
		raw("tab before the encoding's value", head+"Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n", orders),
		raw("continued encoding", head+"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", orders),
		raw("chunk size that is none", head+"Transfer-Encoding: chunked\r\n\r\nzz\r\n"+hidden, outcome{status: 400}),
		raw("first line is continued", "GET /orders/1 HTTP/1.1\r\n x: y\r\nHost: api.e2e.test\r\n{credential}\r\n", refused(400)),
		raw("bare line feeds", "GET /orders/1 HTTP/1.1\nHost: api.e2e.test\n{credential}\n", orders),
		raw("empty line first", "\r\nGET /orders/1 HTTP/1.1\r\nHost: api.e2e.test\r\n{credential}\r\n", orders),
		raw("HTTP/1.0", "GET /orders/1 HTTP/1.0\r\nHost: api.e2e.test\r\n{credential}\r\n", refused(426)),
		raw("HTTP/0.9", "GET /orders/1\r\n\r\n", refused(426)),
		raw("HTTP/1.2", "GET /orders/1 HTTP/1.2\r\nHost: api.e2e.test\r\n{credential}\r\n", refused(426)),
		raw("HTTP/2.0 in HTTP/1", "GET /orders/1 HTTP/2.0\r\nHost: api.e2e.test\r\n{credential}\r\n", refused(426)),
		raw("no method", " /orders/1 HTTP/1.1\r\nHost: api.e2e.test\r\n{credential}\r\n", refused(400)),
		raw("a body that looks like a request", head+"Content-Length: 50\r\n\r\n"+hidden, orders),
		raw("trailer with an identity", head+"Transfer-Encoding: chunked\r\nTrailer: x-auth-user\r\n\r\n0\r\nx-auth-user: evil\r\nx-api-key: evil\r\n\r\n", orders),
		raw("expectation", head+"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nok", orders),
		raw("upgrade to HTTP/2", "GET /orders/1 HTTP/1.1\r\nHost: api.e2e.test\r\n{credential}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n", orders),
		{name: "upgrade that no route takes", group: 6, lines: []string{"Connection: Upgrade", "Upgrade: websocket"}, want: refused(403), bare: 403},
		{
			name: "a second request on the connection", group: 6, want: same("public", "/public/x"), then: 401,
			raw: "GET /public/x HTTP/1.1\r\nHost: api.e2e.test\r\n{credential}\r\nGET /admin/hidden HTTP/1.1\r\nHost: api.e2e.test\r\n\r\n",
		},

		field("upper case name (h2)", refused(cut), traffic.Frame{Name: "X-Auth-User", Value: evil}),
		field("line break in a value (h2)", refused(cut), traffic.Frame{Name: "x-note", Value: "a\r\nx-auth-user: evil"}),
		field("NUL in a value (h2)", refused(cut), traffic.Frame{Name: "x-note", Value: "a\x00b"}),
		field("line break in a name (h2)", refused(cut), traffic.Frame{Name: "x-note\r\nx-auth-user", Value: evil}),
		field("space in a name (h2)", refused(cut), traffic.Frame{Name: "x note", Value: evil}),
		field("colon in a name (h2)", refused(cut), traffic.Frame{Name: "x-note:", Value: evil}),
		field("underscore in a name (h2)", refused(cut), traffic.Frame{Name: "x_auth_user", Value: evil}),
		field("transfer-encoding (h2)", refused(cut), traffic.Frame{Name: "transfer-encoding", Value: "chunked"}),
		field("connection (h2)", refused(cut), traffic.Frame{Name: "connection", Value: "x-api-key"}),
		field("te (h2)", refused(cut), traffic.Frame{Name: "te", Value: "gzip"}),
		field("two lengths (h2)", refused(cut), traffic.Frame{Name: "content-length", Value: "0"}, traffic.Frame{Name: "content-length", Value: "9"}),
		field("unknown pseudo header (h2)", refused(cut), traffic.Frame{Name: ":evil", Value: "1"}),
		field("status in a request (h2)", refused(cut), traffic.Frame{Name: ":status", Value: "200"}),
		field("pseudo header behind a field (h2)", refused(cut), traffic.Frame{Name: "x-note", Value: "1"}, traffic.Frame{Name: ":path", Value: "/public/x"}),
		field("101 headers (h2)", refused(cut), repeated(101, traffic.Frame{Name: "x-a", Value: "1"})...),
		{name: "no method (h2)", group: 6, h2: true, want: refused(cut), pseudo: []traffic.Frame{{Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/orders/1"}, {Name: ":authority", Value: "api.e2e.test"}}},
		{name: "no scheme (h2)", group: 6, h2: true, want: refused(cut), pseudo: []traffic.Frame{{Name: ":method", Value: "GET"}, {Name: ":path", Value: "/orders/1"}, {Name: ":authority", Value: "api.e2e.test"}}},
		{name: "scheme of another kind (h2)", group: 6, h2: true, want: orders, pseudo: []traffic.Frame{
			{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "file"}, {Name: ":path", Value: "/orders/1"}, {Name: ":authority", Value: "api.e2e.test"},
		}},
		{name: "body longer than its length (h2)", group: 6, h2: true, method: "POST", lines: []string{"content-length: 1"}, body: "12345", want: refused(cut)},
		{name: "body without a length (h2)", group: 6, h2: true, method: "POST", body: "12345", want: orders},
	}
}

func repeated(n int, f traffic.Frame) []traffic.Frame {
	var out []traffic.Frame
	for range n {
		out = append(out, f)
	}
	return out
}

// mixAttacks is group 4: one kind of credential speaks, or none.
func mixAttacks() []attack {
	orders := same("orders", "/orders/1")
	mix := func(name string, want outcome, with ...string) attack {
		return attack{name: name, group: 4, with: with, want: want}
	}
	at := func(target string, a attack) attack { a.target = target; return a }
	return []attack{
		mix("key and token of one tenant", refused(401), keyOfA, "Authorization: Bearer {token}"),
		mix("key of A and token of B", refused(401), keyOfA, "Authorization: Bearer {tokenB}"),
		mix("key of B and token of A", refused(401), "x-api-key: {keyB}", "Authorization: Bearer {token}"),
		mix("key of A and a broken token", refused(401), keyOfA, "Authorization: Bearer x.y.z"),
		mix("broken key and token of A", refused(401), "x-api-key: tok_live_x", "Authorization: Bearer {token}"),
		mix("token of A that names B in a header", orders.by("bob"), "Authorization: Bearer {token}", "x-tenant-id: globex"),
		mix("key of A that names B in a header", orders, keyOfA, "x-tenant-id: globex", "x-auth-tenant: globex"),
		mix("key of A, token of B in a cookie", orders, keyOfA, "Cookie: token={tokenB}; access_token={tokenB}; x-api-key={keyB}"),
		mix("token of A, key of B in a cookie", orders.by("bob"), "Authorization: Bearer {token}", "Cookie: x-api-key={keyB}"),
		mix("key in a cookie alone", refused(401), "Cookie: x-api-key={key}; api_key={key}"),
		mix("token in a cookie alone", refused(401), "Cookie: authorization={token}; jwt={token}"),
		mix("key as bearer", refused(401), "Authorization: Bearer {key}"),
		mix("key in Authorization of its own", refused(401), "Authorization: ApiKey {key}"),
		mix("key as password", refused(401), "Authorization: Basic {key}"),
		mix("token in the key header", refused(401), "x-api-key: {token}"),
		mix("token in another header", refused(401), "x-authorization: Bearer {token}", "proxy-authorization: Bearer {token}", "x-jwt: {token}"),
		mix("identity token of ours from outside", refused(401), "x-auth-token: {token}", "x-auth-tenant: acme", "x-auth-user: ann", "x-auth-kind: jwt"),
		mix("our identity headers beside a key", orders, keyOfA, "x-auth-token: {tokenB}", "x-auth-tenant: globex", "x-auth-user: evil"),
		at("/orders/1?api_key=k&x-api-key=k", mix("key in the query alone", refused(401), "x-note: {key}")),
		at("/orders/1?access_token=t&token=t", mix("token in the query alone", refused(401), "x-note: {token}")),
		at("/orders/1?tenant=globex&x-api-key=evil", mix("header and query differ", same("orders", "/orders/1?tenant=globex&x-api-key=evil"), keyOfA)),
		at("/globex/1", mix("route of tenant B with A's key", refused(403), keyOfA)),
		at("/globex/1", mix("route of tenant B with A's token", refused(403), "Authorization: Bearer {token}", "x-auth-tenant: globex")),
		at("/admin/1", mix("privileged route with A's key", refused(403), keyOfA)),
		at("/admin/1", mix("privileged route with a key that may", outcome{status: 200, route: "admin", path: "/admin/1", host: "api.e2e.test", user: "root", kind: "api_key"}, "x-api-key: {root}")),
		at("/admin/1", mix("privileged route with B's token", refused(403), "Authorization: Bearer {tokenB}")),
		at("/keys/1", mix("token where only keys count", refused(401), "Authorization: Bearer {token}")),
		at("/keys/1", mix("key where only keys count", same("either", "/keys/1"), keyOfA)),
		at("/tokens/1", mix("key where only tokens count", refused(401), keyOfA)),
		at("/tokens/1", mix("token where only tokens count", same("tokens", "/tokens/1").by("bob"), "Authorization: Bearer {token}")),
		at("/both/1", mix("key where both are needed", refused(401), keyOfA)),
		at("/both/1", mix("token where both are needed", refused(401), "Authorization: Bearer {token}")),
		at("/both/1", mix("good token and bad key where both are needed", refused(401), "Authorization: Bearer {token}", "x-api-key: {key}x")),
		at("/both/1", mix("bad token and good key where both are needed", refused(401), "Authorization: Bearer x.y.z", keyOfA)),
		at("/both/1", mix("both where both are needed", same("both", "/both/1").by("bob"), "Authorization: Bearer {token}", keyOfA)),
		at("/both/1", mix("both where both are needed, of two tenants: the first names the caller", same("both", "/both/1").by("bob"), "Authorization: Bearer {token}", "x-api-key: {keyB}")),
		at("/partner/1", mix("token of another issuer of ours", refused(401), "Authorization: Bearer {token}")),
		at("/partner/1", mix("token of the right issuer of two", same("partner", "/partner/1").by("pat"), "Authorization: Bearer {tokenP}")),
		at("/orders/1", mix("token of the wrong issuer of two", refused(401), "Authorization: Bearer {tokenP}")),
		at("/public/x", mix("broken credential on a public route", same("public", "/public/x"), "x-api-key: evil", "Authorization: Bearer evil, evil")),
		at("/public/x", mix("two kinds on a public route", same("public", "/public/x"), keyOfA, "Authorization: Bearer {tokenB}")),
	}
}
