package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
)

// limited is a gateway with one limit that can trip at the tenth request, and
// others that cannot.
func limited(gateway, plan, user, route int) string {
	text := strings.Replace(head, "{name: acme}", "{name: acme, plan: pro}", 1)
	text = strings.Replace(text, "{name: globex}", "{name: globex, plan: pro}", 1)
	return text + fmt.Sprintf(`
plans: [{name: pro, rate_limit: [{limit: %d, per: hour, by: [tenant]}]}]
rate_limit: [{name: all, limit: %d, per: hour}]
upstreams: [{name: up, endpoints: ["${up}"]}]
routes:
  - name: main
    match: {path: {prefix: /main}}
    auth: %s
    upstream: up
    rate_limit:
      - {name: user, limit: %d, per: hour, by: [tenant, user]}
      - {name: route, limit: %d, per: hour, by: [tenant, route]}
  - {name: other, match: {path: {prefix: /other}}, auth: %s, upstream: up}
`, plan, gateway, either, user, route, either)
}

// TestProof03LimitsTripAlone: each level refuses at its own number, and whom it
// does not concern goes on.
func TestProof03LimitsTripAlone(t *testing.T) {
	const many, few = 100_000, 10
	awayFromTheHour(t)
	tests := []struct {
		name                       string
		gateway, plan, user, route int
		limit                      string // as the access log names it
		sameUser, otherUser        int    // on another route; another user on the same route
		otherTenant                int
	}{
		{"gateway", few, many, many, many, "gateway/all", 429, 429, 429},
		{"plan", many, few, many, many, "plan/pro/0", 429, 429, 200},
		{"user", many, many, few, many, "route/main/user", 200, 200, 200},
		{"route", many, many, many, few, "route/main/route", 200, 429, 200},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			up := harness.NewUpstream(t, "up")
			s := harness.NewStack(t, harness.Options{
				Gateway: limited(test.gateway, test.plan, test.user, test.route), Vars: map[string]string{"up": up.Address},
				Keys: []harness.Key{
					{Name: "ann", Tenant: "acme", Owner: "ann", Permissions: []string{"*"}},
					{Name: "bob", Tenant: "acme", Owner: "bob", Permissions: []string{"*"}},
					{Name: "eve", Tenant: "globex", Owner: "eve", Permissions: []string{"*"}},
				},
			})
			r := traffic.Run(traffic.Load{Request: traffic.Request{URL: s.URL("/main"), Header: withKey(s.Secrets["ann"])}, Count: 25})
			if r.Status[okOnly] != few || r.Status[http.StatusTooManyRequests] != 25-few {
				t.Errorf("of 25: %v, want %d admitted", r.Status, few)
			}
			for who, want := range map[[2]string]int{
				{"ann", "/other"}: test.sameUser, {"bob", "/main"}: test.otherUser, {"eve", "/main"}: test.otherTenant,
			} {
				if a := get(t, s, who[1], withKey(s.Secrets[who[0]])); a.Status != want {
					t.Errorf("%s on %s: %d, want %d", who[0], who[1], a.Status, want)
				}
			}
			harness.Eventually(t, 3*time.Second, "the access log names the limit", func() error {
				if !strings.Contains(s.Envoy.Log(), `"limit":"`+test.limit+`"`) || !strings.Contains(s.Envoy.Log(), `"decision":"over_limit"`) {
					return fmt.Errorf("not there yet")
				}
				return nil
			})
			// All or nothing: what one limit refused cost the others nothing.
			if up.Count() < few || up.Count() > few+3 {
				t.Errorf("%d requests reached the upstream", up.Count())
			}
		})
	}
}

// TestProof03ExactOnRedis: 32 clients straight on two limiters that share a
// Redis are admitted exactly as often as the limit says.
func TestProof03ExactOnRedis(t *testing.T) {
	const limit, clients, each = 500, 32, 40
	awayFromTheHour(t)
	redis := harness.StartRedis(t)
	up := harness.NewUpstream(t, "up")
	s := harness.NewStack(t, harness.Options{
		Gateway: limited(limit, 100_000, 100_000, 100_000), Vars: map[string]string{"up": up.Address}, RateLimit: 2, RedisURL: redis.URL, NoEnvoy: true,
	})
	var limiters []rlsv3.RateLimitServiceClient
	for _, p := range s.RateLimit {
		conn, err := grpc.NewClient(p.Ready.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		limiters = append(limiters, rlsv3.NewRateLimitServiceClient(conn))
	}
	request := &rlsv3.RateLimitRequest{Domain: "tollgate", Descriptors: []*ratelimitv3.RateLimitDescriptor{
		{Entries: []*ratelimitv3.RateLimitDescriptor_Entry{{Key: "limit", Value: "gateway/all"}}},
	}}
	var admitted, refused atomic.Int64
	var group sync.WaitGroup
	for c := range clients {
		group.Go(func() {
			for i := range each {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				answer, err := limiters[(c+i)%2].ShouldRateLimit(ctx, request)
				cancel()
				switch {
				case err != nil:
					t.Errorf("client %d: %v", c, err)
				case answer.GetOverallCode() == rlsv3.RateLimitResponse_OK:
					admitted.Add(1)
				default:
					refused.Add(1)
				}
			}
		})
	}
	group.Wait()
	if admitted.Load() != limit || refused.Load() != clients*each-limit {
		t.Errorf("admitted %d, refused %d of %d, want exactly %d admitted", admitted.Load(), refused.Load(), clients*each, limit)
	}
}

// awayFromTheHour keeps a test of an hour's window from crossing into the next.
func awayFromTheHour(t *testing.T) {
	t.Helper()
	if left := time.Until(time.Now().Truncate(time.Hour).Add(time.Hour)); left < 45*time.Second {
		time.Sleep(left + time.Second)
	}
}
