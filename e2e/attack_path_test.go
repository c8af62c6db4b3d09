package e2e_test

import (
	"strings"

	"tollgate/e2e/traffic"
)

// pathAttacks is group 1: one path, read in one way by all.
func pathAttacks() []attack {
	var all []attack
	add := func(name, target string, want outcome, more ...func(*attack)) {
		a := attack{name: name, group: 1, target: target, want: want}
		for _, change := range more {
			change(&a)
		}
		all = append(all, a)
	}
	over2 := func(a *attack) { a.h2 = true; a.name += " (h2)" }
	method := func(m string) func(*attack) { return func(a *attack) { a.method = m } }

	// Steps up and doubled slashes are gone before anything is decided.
	for _, up := range []struct{ name, prefix string }{
		{"dot segment", "/public/.."},
		{"encoded dot segment", "/public/%2e%2e"},
		{"half encoded dot segment", "/public/.%2E"},
		{"dot segment with parameters", "/public/..;"},
		{"dot segment with named parameters", "/public/..;a=1"},
		{"deep dot segments", "/public/a/b/../../.."},
		{"single dots", "/./."},
		{"too many steps up", "/public/../../../.."},
		{"doubled slashes", "//"},
		{"many slashes", "/////"},
		{"slash behind dots", "/public/..//"},
		{"backslashes", `/public\..`},
	} {
		path := strings.TrimSuffix(up.prefix, "/")
		add(up.name+" to orders", path+"/orders/1", same("orders", "/orders/1"))
		add(up.name+" to admin", path+"/admin/1", refused(403))
		add(up.name+" to admin", path+"/admin/1", refused(403), over2)
	}
	add("dots out of a protected route", "/admin/../public/x", same("public", "/public/x"))
	add("dots within a route that reads the path", "/files/acme/../globex/1", refused(403))
	add("encoded dots within a route that reads the path", "/files/acme/%2e%2e/globex/1", refused(403))
	add("dots home again", "/files/globex/../acme/1", same("files", "/files/acme/1"))
	add("doubled slash in a route that reads the path", "/files//acme/1", same("files", "/files/acme/1"))
	add("encoded tenant in a route that reads the path", "/files/%61cme/1", same("files", "/files/acme/1"))
	add("case of the tenant", "/files/ACME/1", refused(403))

	// Escaped separators and NUL end at once.
	for _, bad := range []struct{ name, target string }{
		{"escaped slash", "/public/..%2fadmin"},
		{"escaped slash, upper case", "/public/..%2Fadmin"},
		{"escaped slash in a segment", "/orders/a%2fb"},
		{"escaped backslash", `/public/..%5cadmin`},
		{"escaped backslash, upper case", `/orders/a%5Cb`},
		{"escaped NUL", "/admin%00"},
		{"escaped NUL in a public path", "/public/%00"},
		// What upstreams read in their own ways meets the guard, public or not.
		{"doubly escaped dots", "/public/%252e%252e/admin"},
		{"doubly escaped slash", "/orders/%252fadmin"},
		{"escaped percent", "/orders/100%25"},
		{"path parameter", "/admin;x=1"},
		{"empty path parameter", "/admin;"},
		{"session in the path", "/orders/1;jsessionid=2"},
		{"parameter in a public path", "/public/a;b"},
		{"overlong dot", "/public/%c0%ae%c0%ae/admin"},
		{"overlong slash", "/public/%C0%AFadmin"},
		{"broken escape", "/orders/a%zz"},
		{"cut escape", "/orders/%4"},
		{"lonely percent", "/orders/%"},
		{"percent u", "/orders/%u002e"},
		// An escape of what may stand bare is a second spelling (S3).
		{"escaped colon", "/orders/things%3Apurge"},
		{"escaped colon, lower case", "/orders/things%3apurge"},
		{"escaped at", "/orders/%40me"},
		{"escaped dollar", "/orders/%24batch"},
		{"escaped plus in a public path", "/public/a%2Bb"},
		{"escaped comma and equals sign", "/orders/a%2Cb%3D"},
		{"escaped exclamation mark", "/orders/%21"},
		{"bare bracket", "/orders/[1]"},
		{"broken escape in a query", "/orders/1?a=%zz"},
		{"byte that UTF-8 lacks in a query", "/orders/1?a=%ff"},
		{"two separators in a query", "/orders/1?a=1;b=2"},
		{"129 parameters", "/orders/1?" + strings.Repeat("a&", 128) + "a"},
		{"12,000 parameters of a public path", "/public/x?mode=admin" + strings.Repeat("&", 12_000)},
	} {
		add(bad.name, bad.target, refused(400))
		add(bad.name, bad.target, refused(400), over2)
	}
	// The second guard is ext_authz; without a credential it says so as well.
	for _, bad := range []struct{ name, target string }{
		{"overlong dot in three bytes", "/orders/%e0%80%ae"},
		{"overlong dot in four bytes", "/orders/%f0%80%80%ae"},
		{"escaped line break", "/orders/%0d%0aX-Evil:1"},
		{"escaped tab", "/orders/%09"},
		{"escaped delete", "/orders/%7f"},
		{"byte that UTF-8 lacks", "/orders/%ff"},
	} {
		add(bad.name, bad.target, refused(400))
	}
	// Honest paths that look odd stay as they are.
	for _, odd := range []struct{ name, target string }{
		{"escaped space", "/orders/a%20b"},
		{"escaped euro", "/orders/%E2%82%AC"},
		{"trailing slash", "/orders/"},
		{"empty query", "/orders/1?"},
		{"query with a path in it", "/orders/1?/../admin"},
		{"query with escapes", "/orders/1?a=%2e%2e%2f&b=%25&c=%3B&d=%00"},
		{"query with a second question mark", "/orders/1?a?b"},
		{"three dots", "/orders/..."},
		{"hidden file", "/orders/.git"},
		{"escaped number sign", "/orders/a%23f"},
		{"path of 8 KiB", "/orders/" + strings.Repeat("a", 8<<10)},
	} {
		add(odd.name, odd.target, same("orders", odd.target))
		add(odd.name, odd.target, same("orders", odd.target), over2)
	}
	add("escaped letters of orders", "/%6frders/1", same("orders", "/orders/1"))
	add("escaped letters of admin", "/%61dmin/1", refused(403))
	add("escaped letters of admin, all of them", "/%61%64%6D%69%6e", refused(403), over2)
	add("trailing slash of admin", "/admin/", refused(403))
	add("query of admin", "/admin?", refused(403))
	add("public query of admin", "/admin?/public/", refused(403))
	add("another case", "/Admin", refused(404))
	add("a name that begins alike", "/administrator", refused(404))
	add("nothing of ours", "/", refused(404))
	add("nothing of ours over the protected prefix", "/orders.json", refused(404))

	// Targets that are no paths.
	for _, bad := range []struct{ name, target string }{
		{"fragment", "/admin#f"},
		{"fragment of a public path", "/public/#/../admin"},
		{"raw NUL", "/orders/\x00"},
		{"raw tab", "/orders/\t1"},
		{"raw high byte", "/orders/\xff"},
		{"raw delete", "/orders/\x7f"},
		{"no slash", "orders/1"},
		{"asterisk", "*"},
		{"no target", " "},
	} {
		add(bad.name, bad.target, refused(400))
	}
	add("asterisk of OPTIONS", "*", refused(404), method("OPTIONS"))
	add("tab behind the path", "/orders/1\t", same("orders", "/orders/1"))
	add("space in the path", "/orders/1 2", refused(400))
	add("path of 64 KiB", "/orders/"+strings.Repeat("a", 64<<10), refused(431))
	add("absolute form", "http://api.e2e.test/orders/1", same("orders", "/orders/1"))
	add("absolute form with port", "http://api.e2e.test:80/orders/1", same("orders", "/orders/1"))
	add("absolute form with steps up", "http://api.e2e.test/public/../admin", refused(403))
	add("absolute form of another host", "http://nowhere.test/orders/1", refused(404))
	add("absolute form of the office", "http://admin.e2e.test/orders/1", refused(403))
	add("absolute form with userinfo", "http://admin@api.e2e.test/orders/1", same("orders", "/orders/1"))
	add("absolute form without a path", "http://api.e2e.test", refused(404))
	add("another scheme", "ftp://api.e2e.test/orders/1", refused(400))
	add("CONNECT", "api.e2e.test:443", refused(404), method("CONNECT"))
	add("CONNECT to a path", "/orders/1", refused(400), method("CONNECT"))
	return append(all, pathAttacks2()...)
}

// pathAttacks2 are those that only HTTP/2 can carry.
func pathAttacks2() []attack {
	pseudo := func(fields ...string) []traffic.Frame {
		var out []traffic.Frame
		for i := 0; i < len(fields); i += 2 {
			out = append(out, traffic.Frame{Name: fields[i], Value: fields[i+1]})
		}
		return out
	}
	get := []string{":method", "GET", ":scheme", "http", ":authority", "api.e2e.test"}
	return []attack{
		{name: "no :path (h2)", group: 1, h2: true, pseudo: pseudo(get...), want: refused(cut)},
		{name: "empty :path (h2)", group: 1, h2: true, pseudo: pseudo(append(get, ":path", "")...), want: refused(cut)},
		{name: "relative :path (h2)", group: 1, h2: true, pseudo: pseudo(append(get, ":path", "orders/1")...), want: refused(cut)},
		{name: "asterisk (h2)", group: 1, h2: true, pseudo: pseudo(append(get, ":path", "*")...), want: refused(cut)},
		{name: "absolute :path (h2)", group: 1, h2: true, pseudo: pseudo(append(get, ":path", "http://api.e2e.test/orders/1")...), want: refused(cut)},
		{name: "fragment (h2)", group: 1, h2: true, target: "/admin#f", want: refused(400)},
		{name: "space in :path (h2)", group: 1, h2: true, target: "/orders/1 HTTP/1.1", want: refused(cut)},
		{name: "line break in :path (h2)", group: 1, h2: true, target: "/orders/1\r\nx-auth-user: evil", want: refused(cut)},
		{name: "NUL in :path (h2)", group: 1, h2: true, target: "/orders/\x00", want: refused(cut)},
		{name: "high byte in :path (h2)", group: 1, h2: true, target: "/orders/\xff", want: refused(400)},
		{name: "two :path (h2)", group: 1, h2: true, pseudo: pseudo(append(get, ":path", "/public/x", ":path", "/admin")...), want: refused(cut)},
		{name: "CONNECT (h2)", group: 1, h2: true, pseudo: pseudo(":method", "CONNECT", ":authority", "api.e2e.test:443"), want: refused(404)},
		{name: "extended CONNECT (h2)", group: 1, h2: true, pseudo: pseudo(":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "api.e2e.test", ":path", "/orders/1"), want: refused(cut)},
		{name: "CONNECT with a path (h2)", group: 1, h2: true, pseudo: pseudo(":method", "CONNECT", ":authority", "api.e2e.test:443", ":path", "/orders/1", ":scheme", "http"), want: refused(cut)},
	}
}
