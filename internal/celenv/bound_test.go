package celenv_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/internal/celenv"
)

// worst is the largest request that a rule may be shown.
func worst() *celenv.Input {
	in := input()
	query, headers := map[string]string{}, map[string]string{}
	for i := range celenv.MaxEntries {
		query[fmt.Sprintf("p%d", i)] = strings.Repeat("a", 60_000/celenv.MaxEntries)
		headers[fmt.Sprintf("x-%d", i)] = strings.Repeat("a", 60_000/celenv.MaxEntries)
	}
	headers["x-long"] = strings.Repeat("a", celenv.MaxText)
	in.Request.Query = func() map[string]string { return query }
	in.Request.Headers = func() map[string]string { return headers }
	in.Request.Path = "/" + strings.Repeat("a", celenv.MaxText-1)
	in.Request.Segments = strings.Split(strings.Repeat("a/", celenv.MaxEntries-1)+"a", "/")
	groups := make([]any, 2700) // of a token of 8 KiB
	for i := range groups {
		groups[i] = "g"
	}
	in.Auth.Claims = map[string]any{"groups": groups, "long": strings.Repeat("a", celenv.MaxText)}
	in.Auth.Permissions = strings.Split(strings.Repeat("a:b ", 2000), " ")
	return in
}

// cpu is the time that this process has had.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestCost (S10): whatever compiles costs at most 5 ms of CPU on the largest
// request; what could cost more does not compile, or ends by itself.
func TestCost(t *testing.T) {
	const most = slower * 5 * time.Millisecond
	env, err := celenv.New()
	if err != nil {
		t.Fatal(err)
	}
	for _, expr := range []string{
		`request.query.exists(k, request.query.exists(j, false))`,
		`request.query.exists(k, request.query[k] == "x")`,
		`request.headers.exists(k, request.headers.exists(j, j == k + "x"))`,
		`request.query.exists(k, request.query.exists(j, request.query.exists(l, false)))`,
		`request.query.all(k, request.query[k].contains("b"))`,
		`auth.claims.groups.exists(g, auth.claims.groups.exists(h, h == g + "x"))`,
		`auth.claims.groups.exists(g, g.matches("^[a-z]{1,30}[0-9]$"))`,
		`auth.permissions.exists(p, auth.permissions.exists(q, q == p + "x"))`,
		`request.segments.exists(s, request.segments.exists(q, q == s + "x"))`,
		`request.headers["x-long"].matches("[a-z]{1,200}[0-9]")`,
		`request.headers["x-long"].matches("(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)b")`,
		`request.path.matches("^.*a.{50}$") || request.path.matches("(a|aa)+b") || request.path.matches("(.*)(.*)b")`,
		`auth.claims.long.matches("^.*a.{50}$")`,
		`request.headers["x-long"].matches(request.query["p0"])`,
		`matches(request.path, "(.*)(.*)(.*)b")`,
		`(request.path + request.path + request.path + request.path).contains(request.path + "b")`,
		`request.path.matches("^/a[0-9]+$")`,
		`auth.claims.groups.exists(g, g == "x")`,
		`auth.claims.groups.exists(g, auth.claims.groups.exists(h, h == "x"))`,
		`auth.claims.groups.exists(g, request.segments.exists(s, s == g))`,
		`request.segments.exists(s, s == "x") || request.query.exists(k, request.query[k] == k) || auth.claims.groups.all(g, g != "x")`,
		`request.query.map(k, k + "x").exists(k, k == "y")`,
	} {
		p, err := env.Compile(expr)
		if err != nil {
			t.Logf("%s: %v", expr, err)
			continue
		}
		for _, length := range []int{celenv.MaxText, 5000, 3125, 2083, 1666, 1000, 714, 438, 256} {
			in := worst()
			in.Request.Path = in.Request.Path[:length]
			in.Request.Headers()["x-long"] = strings.Repeat("a", length)
			in.Auth.Claims["long"] = strings.Repeat("a", length)
			best := time.Hour // of several: the collector and neighbours cost too
			for range 5 {
				before := cpu(t)
				_, err = p.Eval(t.Context(), in)
				best = min(best, cpu(t)-before)
			}
			if best > most/10 {
				t.Logf("%s: at most %d units, texts of %d: %v, %v", expr, p.Cost(), length, best, err)
			}
			if best > most {
				t.Errorf("%s: %v of CPU, want at most %v", expr, best, most)
			}
		}
	}
}

// TestInterrupted: a loop ends with the request's deadline.
func TestInterrupted(t *testing.T) {
	env, _ := celenv.New()
	p, err := env.Compile(`request.query.exists(k, k == "x")`)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if held, err := p.Eval(ctx, worst()); held || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v; want that of the context", held, err)
	}
}

func TestLooks(t *testing.T) {
	env, _ := celenv.New()
	for expr, want := range map[string]celenv.Looks{
		`true`: {},
		`request.query["mode"] == "a" && request.query.mode == "b"`:        {Query: []string{"mode"}},
		`"b" in request.query || has(request.query.a)`:                     {Query: []string{"a", "b"}},
		`request.headers["X-Mode"] == "a" && "x-b" in request.headers`:     {Headers: []string{"x-b", "x-mode"}},
		`request.query.exists(k, k == "a")`:                                {AllQuery: true},
		`size(request.headers) > 1`:                                        {AllHeaders: true},
		`request.query[auth.user] == "1" && request.query["a"] == "1"`:     {Query: []string{"a"}, AllQuery: true},
		`request.path in request.query`:                                    {AllQuery: true, Path: true},
		`request.query["a"].matches("^b$") && matches(request.path, "^c")`: {Query: []string{"a"}, Path: true},
		`request.segments[0] == "a"`:                                       {Path: true},
	} {
		p, err := env.Compile(expr)
		if err != nil {
			t.Errorf("%s: %v", expr, err)
			continue
		}
		if got := p.Looks(); !reflect.DeepEqual(got, want) && fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s looks at %+v, want %+v", expr, got, want)
		}
	}
}
