package e2e_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
)

// pick returns the element of a cycle that belongs to an edit.
func pick[T any](i int, of ...T) T { return of[i%len(of)] }

// changing is a gateway that differs from one edit to the next in all that an
// operator edits: of the route under load the policy, the target, the retries
// and the limits (which move from one rate-limit filter to the other), the plan
// and its limit, a role, endpoints, health checks and balancing of the upstreams
// under load, and the order of everything. Every edit brings a route new<i>
// with an upstream of its own and takes that of four edits ago away.
func changing(i int) string {
	upstreams := []string{
		fmt.Sprintf(`{name: a, endpoints: [%s], connect_timeout: %ds}`, pick(i, `"${a}"`, `"${a}", "${c}"`), 1+i%2),
		fmt.Sprintf(`{name: b, endpoints: [{address: "${b}", weight: %d}, "${c}"], load_balancing: {policy: %s}, health_check: %s}`,
			1+i%4, pick(i, "round_robin", "least_request", "random"), pick(i/2, "{path: /healthz, interval: 1s}", "none", "{path: /healthz, interval: 2s, timeout: 500ms}")),
		fmt.Sprintf(`{name: both, split: [{upstream: a, weight: %d}, {upstream: b, weight: %d}]}`, 1+i%5, pick(i, 1, 0, 3)),
	}
	rules := pick(i/2, "none",
		fmt.Sprintf(`[{allow: 'request.method != "X%d"'}]`, i),
		`[{permission: "orders:read"}]`,
		fmt.Sprintf(`[{allow: 'auth.can("orders:read") && request.method != "X%d"'}, {deny: 'auth.tenant == "globex"'}]`, i))
	limit := fmt.Sprintf(`{limit: %d, per: minute, by: [%s], on_error: %s%s}`,
		100_000+i, pick(i, "tenant", "tenant, user", "ip"), pick(i, "open", "local", "closed"), pick(i/2, "", ", algorithm: gcra, burst: 50000"))
	routes := []string{
		fmt.Sprintf(`{name: main, match: {path: {prefix: /main}}, auth: %s, authorize: %s, upstream: %s, timeout: %ds, retry: {attempts: %d}, rate_limit: [%s]}`,
			pick(i, either, "api_key"), rules, pick(i, "a", "b", "both"), 5+i%4, 1+i%3, limit),
		fmt.Sprintf(`{name: plain, match: {path: {prefix: /plain}%s}, auth: public, upstream: %s}`, pick(i, "", ", methods: [GET, POST]"), pick(i/5, "both", "a")),
	}
	for j := max(i-3, 0); j <= i; j++ {
		check := pick(j, "none", "{path: /healthz, interval: 1s}")
		upstreams = append(upstreams, fmt.Sprintf(`{name: new%d, endpoints: ["${c}"], health_check: %s}`, j, check))
		routes = append(routes, fmt.Sprintf(`{name: new%d, match: {path: {prefix: /new%d}}, auth: %s, upstream: new%d}`, j, j, pick(j, "public", either), j))
	}
	if i%2 == 0 {
		slices.Reverse(upstreams)
		slices.Reverse(routes)
	}
	text := strings.Replace(head, "{name: acme}", fmt.Sprintf("{name: acme, plan: %s}", pick(i/4, "pro", "max")), 1)
	text = strings.Replace(text, `roles: {admin: ["*"]}`, fmt.Sprintf(`roles: {admin: ["*"], clerk: ["orders:v%d"]}`, i/3), 1)
	return text + fmt.Sprintf(`
plans:
  - {name: pro, rate_limit: [{limit: %d, per: minute, by: [tenant]}]}
  - {name: max, rate_limit: [{limit: %d, per: hour, by: [tenant]}]}
upstreams:
  - %s
routes:
  - %s
`, 1_000_000+i, 9_000_000+i, strings.Join(upstreams, "\n  - "), strings.Join(routes, "\n  - "))
}

// listenerChanges are Envoy's counts of them.
const listenerChanges = `^listener_manager\.listener_(added|modified|in_place_updated|removed)$`

// TestProof04Edits: a new route with a new upstream serves within a second of
// the save and is never 503 on the way; no request fails during 100 edits at
// 200 requests a second; every edit reaches Envoy and nothing is refused.
func TestProof04Edits(t *testing.T) {
	const edits = 100
	ups := harness.NewUpstreams(t, "a", "b", "c")
	s := harness.NewStack(t, harness.Options{
		Gateway: changing(0), Keys: []harness.Key{{Name: "key", Tenant: "acme", Permissions: []string{"*"}}},
		Vars: map[string]string{"a": ups[0].Address, "b": ups[1].Address, "c": ups[2].Address},
	})
	listeners := s.Envoy.Stats(t, listenerChanges)
	load := traffic.Start(traffic.Load{
		Request: traffic.Request{URL: s.URL("/main"), Header: withKey(s.Secrets["key"]), Vary: func(i int, r *http.Request) {
			if i%4 == 3 {
				r.URL.Path = "/plain"
			}
		}}, Rate: 200, Duration: 2 * time.Minute,
	})
	var worst, sum time.Duration
	for i := 1; i <= edits; i++ {
		s.Save(t, changing(i))
		// Until it serves, the new route may only be unknown.
		took := awaitStatus(t, s, fmt.Sprintf("/new%d", i), withKey(s.Secrets["key"]), okOnly, time.Second)
		worst, sum = max(worst, took), sum+took
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("from save to first 200: mean %s, worst %s", sum/edits, worst)
	harness.Eventually(t, 3*time.Second, "the route of four edits ago is gone", func() error {
		if a := get(t, s, fmt.Sprintf("/new%d", edits-4), withKey(s.Secrets["key"])); a.Status != http.StatusNotFound {
			return errStatus(a)
		}
		return nil
	})
	clean(t, "load during 100 edits", load.Stop(), okOnly)
	rejected := s.Envoy.Stats(t, `update_rejected$`)
	if len(rejected) == 0 || len(listeners) == 0 {
		t.Errorf("Envoy keeps no counts of updates: %v, %v", rejected, listeners)
	}
	for name, n := range rejected {
		if n != 0 {
			t.Errorf("Envoy: %s is %d", name, n)
		}
	}
	for name, n := range s.Envoy.Stats(t, listenerChanges) {
		if n != listeners[name] {
			t.Errorf("an edit of routes reached the listener, which drains its clients: %s went from %d to %d", name, listeners[name], n)
		}
	}
	if n := harness.Metric(t, s.Address(t, "admin"), "tollgate_xds_answers_total", `answer="nack"`); n != 0 {
		t.Errorf("%v responses were refused:\n%s", n, s.Status(t))
	}
	if n := harness.Metric(t, s.Address(t, "admin"), "tollgate_xds_answers_total", `answer="ack"`); n < edits {
		t.Errorf("only %v responses were accepted", n)
	}
}
