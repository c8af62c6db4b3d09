package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
)

// changing is a gateway whose every part differs from one edit to the next: the
// policy, the target and the limit of the route under load, the plan's limit, a
// window of other upstreams and routes, and the order of them all.
func changing(i int) string {
	var upstreams, routes []string
	routes = append(routes, fmt.Sprintf(`  - {name: main, match: {path: {prefix: /main}}, auth: %s, authorize: [{allow: 'request.method != "X%d"'}], upstream: %s, rate_limit: [{limit: %d, per: minute, by: [tenant]}]}`,
		either, i/3, []string{"a", "b", "both"}[i%3], 100_000+i))
	for j := i; j <= i+i%7; j++ {
		upstreams = append(upstreams, fmt.Sprintf(`  - {name: x%d, endpoints: ["${c}"]}`, j))
		routes = append(routes, fmt.Sprintf(`  - {name: x%d, match: {path: {prefix: /x%d}}, auth: public, upstream: x%d}`, j, j, j))
	}
	if i%2 == 0 {
		for l, r := 0, len(routes)-1; l < r; l, r = l+1, r-1 {
			routes[l], routes[r] = routes[r], routes[l]
		}
	}
	return fmt.Sprintf(strings.Replace(head, "{name: acme}", "{name: acme, plan: pro}", 1)+`
plans: [{name: pro, rate_limit: [{limit: %d, per: minute, by: [tenant]}]}]
upstreams:
  - {name: a, endpoints: ["${a}"]}
  - {name: b, endpoints: ["${b}"], load_balancing: {policy: %s}}
  - {name: both, split: [{upstream: a, weight: %d}, {upstream: b, weight: 1}]}
%s
routes:
%s
`, 1_000_000+i, []string{"round_robin", "least_request"}[i%2], 1+i%5, strings.Join(upstreams, "\n"), strings.Join(routes, "\n"))
}

// TestProof04Edits: a new route with a new upstream serves within a second of
// the save and is never 503 on the way; no request fails during 100 edits.
func TestProof04Edits(t *testing.T) {
	const edits = 100
	ups := harness.NewUpstreams(t, "a", "b", "c")
	s := harness.NewStack(t, harness.Options{
		Gateway: changing(0), Keys: []harness.Key{{Name: "key", Tenant: "acme", Permissions: []string{"*"}}},
		Vars: map[string]string{"a": ups[0].Address, "b": ups[1].Address, "c": ups[2].Address},
	})
	load := traffic.Start(traffic.Load{
		Request: traffic.Request{URL: s.URL("/main"), Header: withKey(s.Secrets["key"])}, Rate: 200, Duration: 2 * time.Minute,
	})
	var worst, sum time.Duration
	for i := 1; i <= edits; i++ {
		s.Save(t, changing(i))
		// Until it serves, the new route may only be unknown.
		took := awaitStatus(t, s, fmt.Sprintf("/x%d", i+i%7), nil, okOnly, time.Second)
		worst, sum = max(worst, took), sum+took
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("from save to first 200: mean %s, worst %s", sum/edits, worst)
	clean(t, "load during 100 edits", load.Stop(), okOnly)
}
