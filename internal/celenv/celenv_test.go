package celenv_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tollgate/internal/celenv"
)

func input() *celenv.Input {
	permissions := []string{"orders:read", "users:*"}
	return &celenv.Input{
		Route: "shop/orders",
		Request: celenv.Request{
			Method: "GET", Path: "/api/orders/7", Host: "api.example.com", ClientIP: "10.0.0.7",
			Headers: func() map[string]string { return map[string]string{"x-region": "eu"} },
			Query:   func() map[string]string { return map[string]string{"page": "2"} },
			Time:    time.Date(2026, 11, 21, 4, 0, 0, 0, time.UTC),
		},
		Auth: &celenv.Auth{
			Kind: "jwt", Tenant: "acme", User: "ann", Plan: "pro", KeyID: "",
			Permissions: permissions, Scopes: []string{"openid"}, Grants: celenv.NewGrants(permissions),
			Claims: map[string]any{"level": 3.0, "realm": map[string]any{"name": "a"}, "groups": []any{"x", "y"}},
		},
	}
}

func TestEval(t *testing.T) {
	env, err := celenv.New()
	if err != nil {
		t.Fatal(err)
	}
	for expr, want := range map[string]bool{
		`auth.can("orders:read")`:                           true,
		`auth.can("orders:write")`:                          false,
		`auth.can("users:delete") && route.name != "x"`:     true,
		`request.method == "GET" && auth.tenant == "acme"`:  true,
		`request.path.startsWith("/api/")`:                  true,
		`request.host == "api.example.com"`:                 true,
		`request.headers["x-region"] == "eu"`:               true,
		`"x-none" in request.headers`:                       false,
		`request.query.page == "2"`:                         true,
		`request.client_ip == "10.0.0.7"`:                   true,
		`request.time.getFullYear() == 2026`:                true,
		`auth.kind == "jwt" && auth.user == "ann"`:          true,
		`auth.plan in ["pro", "max"]`:                       true,
		`auth.key_id == ""`:                                 true,
		`"openid" in auth.scopes`:                           true,
		`auth.claims.level >= 3`:                            true,
		`auth.claims.realm.name == "a"`:                     true,
		`"y" in auth.claims.groups`:                         true,
		`has(auth.claims.nothing)`:                          false,
		`auth.permissions.exists(p, p.startsWith("users"))`: true,
		`request.path.matches("^/api/[a-z]+/[0-9]+$")`:      true,
	} {
		p, err := env.Compile(expr)
		if err != nil {
			t.Errorf("%s: %v", expr, err)
			continue
		}
		if got, err := p.Eval(t.Context(), input()); got != want || err != nil {
			t.Errorf("%s = %v, %v; want %v", expr, got, err, want)
		}
	}
}

func TestEvalFails(t *testing.T) {
	env, _ := celenv.New()
	for _, expr := range []string{
		`request.headers["x-none"] == "a"`, `auth.claims.nothing == "a"`, `auth.claims.level.sub == 1`, `auth.claims.realm`,
	} {
		p, err := env.Compile(expr)
		if err != nil {
			var fault *celenv.Error
			if expr == `auth.claims.realm` && errors.As(err, &fault) {
				continue // dyn is not bool: caught before it runs
			}
			t.Errorf("%s: %v", expr, err)
			continue
		}
		if held, err := p.Eval(t.Context(), input()); err == nil || held {
			t.Errorf("%s = %v, %v; want an error", expr, held, err)
		}
	}
}

func TestFaults(t *testing.T) {
	env, _ := celenv.New()
	for expr, want := range map[string]string{
		`request.metod == "GET"`:           `1:1: unknown field "request.metod": request has method, path`,
		"true &&\n  auth.tennant == \"a\"": `2:3: unknown field "auth.tennant"`,
		`auth`:                             `1:1: unknown field "auth"`,
		`nothing == 1`:                     `1:1: unknown word "nothing": expressions see request, auth and route; a text stands in quotes`,
		`auth.email == "x"`:                `1:1: unknown field "auth.email": auth has kind`,
		`true && tenant == "x"`:            `1:9: unknown word "tenant": write auth.tenant`,
		`headers["x"] == "x"`:              `1:1: unknown word "headers": write request.headers`,
		`auth.kind == api_key`:             `1:14: unknown word "api_key": expressions see request`,
		`auth.tenant = "acme"`:             `1:13: "=" is no operator: write ==`,
		`auth.tenant === "acme"`:           `1:15: "===" is no operator: write ==`,
		"true\n  and false":                `2:3: "and" is no operator: write &&`,
		`auth.tenant == "é" or true`:       `1:20: "or" is no operator: write ||`,
		`true & true`:                      `1:6: "&" is no operator: write &&`,
		`not auth.can("a:b")`:              `1:5: "not" is no operator: write !`,
		`auth.tenant <> "x"`:               `1:14: "<>" is no operator: write !=`,
		`auth.tenant in "x"`:               `on the right of "in" there is a list`,
		`auth.tenant == "x`:                "1:16: Syntax error: token recognition error",
		`auth.tenant`:                      "1:1: the expression is of type string, must be bool",
		`auth.tenant == 1`:                 "1:13: found no matching overload",
		`auth.tenant ==`:                   "1:15: Syntax error",
		`"x".can("a:b")`:                   "undeclared reference to 'can'",
		`auth.can(1)`:                      "found no matching overload",
		``:                                 "Syntax error",
		`auth.claims.a.exists(x, auth.claims.b.exists(y, x == y))`:   "it may cost up to",
		`auth.claims.a.exists(x, x.matches(auth.user))`:              "1:39: the regular expression must be written out",
		`request.path.matches("[a-z]{1,200}[0-9]")`:                  "1:22: the regular expression is too large",
		`request.path.matches("(")`:                                  "error parsing regexp",
		strings.Repeat("(", 200) + "true" + strings.Repeat(")", 200): "recursion",
		strings.Repeat(" ", 5000):                                    "the expression has 5000 bytes",
	} {
		_, err := env.Compile(expr)
		var fault *celenv.Error
		if !errors.As(err, &fault) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", expr, err, want)
		}
	}
}

func TestWarnings(t *testing.T) {
	env, _ := celenv.New()
	p, err := env.Compile(`"orders:read" in auth.permissions`)
	if err != nil || len(p.Warnings()) != 1 {
		t.Errorf("%v, %v", p, err)
	}
	p, err = env.Compile(`"x" in auth.scopes && auth.can("a:b")`)
	if err != nil || len(p.Warnings()) != 0 {
		t.Errorf("%v, %v", p, err)
	}
}

// TestGrantsAgainstOracle compares the index with the definition: a grant
// covers a permission if it matches part by part.
func TestGrantsAgainstOracle(t *testing.T) {
	part := rapid.SampledFrom([]string{"a", "b", "*", "ab"})
	permission := rapid.OneOf(
		rapid.Custom(func(t *rapid.T) string { return part.Draw(t, "r") + ":" + part.Draw(t, "a") }),
		rapid.SampledFrom([]string{"*", "a", "", ":", "a:", ":b"}),
	)
	covers := func(grant, wanted string) bool {
		if grant == "*" || grant == "*:*" {
			return true
		}
		gr, ga, ok1 := strings.Cut(grant, ":")
		wr, wa, ok2 := strings.Cut(wanted, ":")
		return ok1 && ok2 && gr != "" && ga != "" && (gr == "*" || gr == wr) && (ga == "*" || ga == wa)
	}
	rapid.Check(t, func(t *rapid.T) {
		granted := rapid.SliceOfN(permission, 0, 5).Draw(t, "granted")
		wanted := permission.Draw(t, "wanted")
		want := false
		for _, g := range granted {
			want = want || covers(g, wanted)
		}
		if got := celenv.NewGrants(granted).Can(wanted); got != want {
			t.Fatalf("%q can %q = %v", granted, wanted, got)
		}
	})
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{`auth.can("a:b")`, `request.x`, `[1,2].all(x, x > 0)`, `"a" in request.headers`, `auth.claims.a[0].b == 1`} {
		f.Add(s)
	}
	env, err := celenv.New()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(_ *testing.T, expr string) {
		if p, err := env.Compile(expr); err == nil {
			_, _ = p.Eval(context.Background(), input())
		}
	})
}

func BenchmarkEval(b *testing.B) {
	env, _ := celenv.New()
	p, err := env.Compile(`auth.can("orders:read") && request.method == "GET" && auth.tenant == request.headers["x-region"]`)
	if err != nil {
		b.Fatal(err)
	}
	in := input()
	headers := map[string]string{"x-region": "acme"}
	in.Request.Headers = func() map[string]string { return headers }
	b.ReportAllocs()
	for b.Loop() {
		if held, err := p.Eval(context.Background(), in); !held || err != nil {
			b.Fatal(held, err)
		}
	}
}
