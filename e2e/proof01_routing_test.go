package e2e_test

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"

	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
)

const balanceGateway = head + `
defaults: {auth: public}
upstreams:
  - {name: even, endpoints: ["${a}", "${b}", "${c}"]}
  - {name: uneven, endpoints: [{address: "${a}", weight: 1}, {address: "${b}", weight: 3}]}
  - {name: v1, endpoints: ["${a}"]}
  - {name: v2, endpoints: ["${b}"]}
  - {name: canary, split: [{upstream: v1, weight: 90}, {upstream: v2, weight: 10}]}
  - {name: loyal, split: [{upstream: v1, weight: 50}, {upstream: v2, weight: 50}], sticky: {cookie: canary, ttl: 1h}}
routes:
  - {name: even, match: {path: {prefix: /even}}, upstream: even}
  - {name: uneven, match: {path: {prefix: /uneven}}, upstream: uneven}
  - {name: canary, match: {path: {prefix: /canary}}, upstream: canary}
  - {name: loyal, match: {path: {prefix: /loyal}}, upstream: loyal}
`

// TestProof01RoutingAndBalance: requests reach every instance, in the shares
// that the file says.
func TestProof01RoutingAndBalance(t *testing.T) {
	t.Run("both services and all instances answer", demoServices)

	ups := harness.NewUpstreams(t, "a", "b", "c")
	s := harness.NewStack(t, harness.Options{
		Gateway: balanceGateway,
		Vars:    map[string]string{"a": ups[0].Address, "b": ups[1].Address, "c": ups[2].Address},
	})
	// One worker and one connection a load, so that round robin is exact.
	share := func(t *testing.T, path string, count int) map[string]int {
		t.Helper()
		r := traffic.Run(traffic.Load{Request: traffic.Request{URL: s.URL(path)}, Count: count, Client: traffic.NewClient(1)})
		clean(t, path, r, okOnly)
		return r.By
	}
	t.Run("round robin of 300 on one connection", func(t *testing.T) {
		for name, n := range share(t, "/even", 300) {
			if n < 99 || n > 101 {
				t.Errorf("%s answered %d, want 100 ± 1", name, n)
			}
		}
	})
	t.Run("weights 1:3 over 2,000", func(t *testing.T) {
		wantShare(t, share(t, "/uneven", 2000), "b", 0.75, 0.03)
	})
	t.Run("split 90/10 over 5,000", func(t *testing.T) {
		r := traffic.Run(traffic.Load{Request: traffic.Request{URL: s.URL("/canary")}, Count: 5000, Workers: 4})
		clean(t, "/canary", r, okOnly)
		wantShare(t, r.By, "b", 0.10, 0.02)
	})
	t.Run("a sticky cookie keeps its version for 100 requests", func(t *testing.T) { sticky(t, s, map[string]string{"v1": "a", "v2": "b"}) })
}

func wantShare(t *testing.T, by map[string]int, name string, want, tolerance float64) {
	t.Helper()
	total := 0
	for _, n := range by {
		total += n
	}
	if got := float64(by[name]) / float64(total); math.Abs(got-want) > tolerance {
		t.Errorf("%s answered %.3f of %d, want %.2f ± %.2f: %v", name, got, total, want, tolerance, by)
	}
}

func sticky(t *testing.T, s *harness.Stack, answers map[string]string) {
	seen := map[string]bool{}
	for try := 0; len(seen) < 2 && try < 40; try++ {
		first := get(t, s, "/loyal", nil)
		cookie := first.Header.Get("set-cookie")
		value, attributes, _ := strings.Cut(strings.TrimPrefix(cookie, "canary="), ";")
		if answers[value] == "" || answers[value] != first.Header.Get("x-upstream") {
			t.Fatalf("first answer came from %s with the cookie %q", first.Header.Get("x-upstream"), cookie)
		}
		for _, word := range []string{"HttpOnly", "SameSite=Lax", "Max-Age=3600"} {
			if !strings.Contains(attributes, word) {
				t.Errorf("cookie %q lacks %s", cookie, word)
			}
		}
		if seen[value] {
			continue
		}
		seen[value] = true
		r := traffic.Run(traffic.Load{
			Request: traffic.Request{URL: s.URL("/loyal"), Header: map[string]string{"cookie": "canary=" + value}}, Count: 100, Workers: 2,
		})
		clean(t, "with canary="+value, r, okOnly)
		if r.By[answers[value]] != 100 {
			t.Errorf("with canary=%s the answers came from %v", value, r.By)
		}
	}
	if len(seen) != 2 {
		t.Errorf("40 first answers named only %v", seen)
	}
	again := get(t, s, "/loyal", map[string]string{"cookie": "canary=v1"})
	if c := again.Header.Get("set-cookie"); c != "" {
		t.Errorf("a client with a cookie got another: %q", c)
	}
}

// demoServices drives the shipped gateway file: both services, two instances
// each, every one of them answers.
func demoServices(t *testing.T) {
	run, _ := startRun(t, copyDemo(t), "--demo")
	base := run.Ready.Listeners["http"]
	if len(run.Ready.Instances) != 4 {
		t.Fatalf("the ready line names %d instances, want 4: %+v", len(run.Ready.Instances), run.Ready.Instances)
	}
	for _, path := range []string{"/api/orders", "/api/users"} {
		for _, header := range []map[string]string{withKey(run.Ready.Demo.APIKey), withToken(run.Ready.Demo.JWT)} {
			r := traffic.Run(traffic.Load{Request: traffic.Request{URL: base + path, Header: header}, Count: 20})
			clean(t, path, r, okOnly)
			if len(r.By) != 2 {
				t.Errorf("%s was answered by %v, want two instances", path, r.By)
			}
		}
	}
	client := traffic.NewClient(1)
	defer client.CloseIdleConnections()
	user := traffic.Request{Method: http.MethodPost, URL: base + "/api/users", Header: withToken(run.Ready.Demo.JWT), Body: `{"name":"Ada","email":"ada@example.com"}`}.Do(t, client)
	if user.Status != http.StatusCreated {
		t.Fatalf("create a user: %d %s", user.Status, user.Body)
	}
	order := traffic.Request{
		Method: http.MethodPost, URL: base + "/api/orders", Header: withToken(run.Ready.Demo.JWT),
		Body: fmt.Sprintf(`{"user_id":%q,"item":"lamp","amount_cents":1999}`, field(t, user.Body, "id")),
	}.Do(t, client)
	if order.Status != http.StatusCreated {
		t.Errorf("create an order, which asks the user service over gRPC: %d %s", order.Status, order.Body)
	}
	for status, request := range map[int]traffic.Request{
		http.StatusOK:           {URL: base + "/healthz"},
		http.StatusUnauthorized: {URL: base + "/api/orders"},
		http.StatusForbidden:    {Method: http.MethodDelete, URL: base + "/api/orders/1", Header: withKey(run.Ready.Demo.APIKey)},
		http.StatusNotFound:     {URL: base + "/nothing"},
	} {
		if a := request.Do(t, client); a.Status != status {
			t.Errorf("%s %s: %d, want %d: %s", request.Method, request.URL, a.Status, status, a.Body)
		}
	}
}
