package e2e_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
)

// witnessGateway has one upstream for each promise of the file that Envoy keeps
// alone. Goldens pin what Envoy is told; the tests below pin what it does.
const witnessGateway = head + `access_log: none
defaults:
  auth: public
  upstream: {connect_timeout: 500ms}
upstreams:
  - {name: narrow, endpoints: ["${slow}"], circuit_breaker: {max_connections: 100, max_pending: 100, max_requests: 2, high: {max_connections: 100, max_pending: 100, max_requests: 5}}}
  - {name: failing, endpoints: ["${failing}"]}
  - name: sick
    endpoints: ["${sick-1}", "${sick-2}"]
    health_check: {path: /healthz, interval: 100ms, timeout: 1s, healthy_threshold: 1, unhealthy_threshold: 1}
  - name: liar
    endpoints: ["${liar}", "${honest}"]
    load_balancing: {policy: round_robin}
    health_check: {path: /healthz, interval: 100ms, timeout: 1s, healthy_threshold: 1, unhealthy_threshold: 1}
    outlier_detection: {consecutive_5xx: 2, eject_for: 60s, interval: 1s, max_ejected: 50%}
  - name: spare
    endpoints: [{address: "${first}", failover: 0}, {address: "${second}", failover: 1}]
    health_check: {path: /healthz, interval: 100ms, timeout: 1s, healthy_threshold: 1, unhealthy_threshold: 1}
  - {name: plain, endpoints: ["${plain}"]}
  - {name: copy, endpoints: ["${copy}"]}
  - {name: retired, split: [{upstream: copy, weight: 0}, {upstream: plain, weight: 100}], sticky: {cookie: canary, ttl: 1h}}
  - {name: both, split: [{upstream: copy, weight: 1}, {upstream: plain, weight: 1}]}
routes:
  - {name: narrow, match: {path: {prefix: /narrow}}, retry: none, upstream: narrow}
  - {name: important, match: {path: {prefix: /important}}, retry: none, importance: high, upstream: narrow}
  - {name: failing, match: {path: {prefix: /failing}}, retry: {attempts: 3, retry_on: ["503"], backoff: {base: 1ms, max: 10ms}}, upstream: failing}
  - {name: sick, match: {path: {prefix: /sick}}, retry: none, upstream: sick}
  - {name: liar, match: {path: {prefix: /liar}}, retry: none, upstream: liar}
  - {name: spare, match: {path: {prefix: /spare}}, retry: none, upstream: spare}
  - {name: mirrored, match: {path: {prefix: /mirrored}}, mirror: {upstream: copy, percent: 50%}, upstream: plain}
  - {name: retired, match: {path: {prefix: /retired}}, upstream: retired}
  - {name: both, match: {path: {prefix: /both}}, auth: api_key, upstream: both}
  - {name: shadow, match: {path: {prefix: /shadow}}, rate_limit: [{limit: 1, per: hour, enforce: false}], upstream: plain}
  - {name: nobody, match: {path: {prefix: /nobody}}, rate_limit: [{limit: 3, per: hour, by: [tenant, user]}], upstream: plain}
  - {name: slow-limit, match: {path: {prefix: /slow-limit}}, rate_limit: [{limit: 100000, per: hour, on_error: open}], upstream: plain}
`

// TestWitness: what goldens tell Envoy is what clients and upstreams see.
func TestWitness(t *testing.T) {
	ups := map[string]*harness.Upstream{}
	vars := map[string]string{}
	for _, name := range []string{"slow", "failing", "sick-1", "sick-2", "liar", "honest", "first", "second", "plain", "copy"} {
		ups[name] = harness.NewUpstream(t, name)
		vars[name] = ups[name].Address
	}
	s := harness.NewStack(t, harness.Options{Gateway: witnessGateway, Vars: vars, Keys: []harness.Key{{Name: "k", Tenant: "acme"}}})
	t.Run("breakers", func(t *testing.T) { witnessBreakers(t, s, ups["slow"]) })
	t.Run("retries", func(t *testing.T) { witnessRetries(t, s, ups["failing"]) })
	t.Run("no panic", func(t *testing.T) { witnessNoPanic(t, s, ups["sick-1"], ups["sick-2"]) })
	t.Run("ejection outlasts a good health check", func(t *testing.T) { witnessEjection(t, s, ups["liar"]) })
	t.Run("failover", func(t *testing.T) { witnessFailover(t, s, ups["first"]) })
	t.Run("mirror takes its share", func(t *testing.T) { witnessMirror(t, s, ups["copy"]) })
	t.Run("sticky never to weight 0", func(t *testing.T) {
		for range 20 {
			if a := get(t, s, "/retired", map[string]string{"cookie": "canary=copy"}); a.Header.Get("x-upstream") != "plain" {
				t.Fatalf("went to %q", a.Header.Get("x-upstream"))
			}
		}
	})
	t.Run("identity is for every member of a split", func(t *testing.T) {
		ups["plain"].Take()
		ups["copy"].Take()
		for range 8 {
			get(t, s, "/both", withKey(s.Secrets["k"]))
		}
		seen := append(ups["plain"].Take(), ups["copy"].Take()...)
		if len(seen) != 8 {
			t.Fatalf("%d requests arrived", len(seen))
		}
		for _, r := range seen {
			if aud := fmt.Sprint(payload(t, r.Header.Get("x-auth-token"))["aud"]); aud != "[both copy plain]" {
				t.Errorf("aud %s", aud)
			}
		}
	})
	t.Run("a shadow limit refuses nobody", func(t *testing.T) {
		for range 5 {
			if a := get(t, s, "/shadow", nil); a.Status != okOnly {
				t.Fatalf("%d %s", a.Status, a.Body)
			}
		}
	})
	t.Run("a missing value is counted", func(t *testing.T) {
		for i := range 4 {
			want := okOnly
			if i == 3 {
				want = http.StatusTooManyRequests
			}
			if a := get(t, s, "/nobody", nil); a.Status != want {
				t.Fatalf("request %d: %d %s", i+1, a.Status, a.Body)
			}
		}
	})
	t.Run("a limiter that hangs costs its budget only", func(t *testing.T) { witnessHungLimiter(t, s) })
}

// payload reads a token without verifying it.
func payload(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("not a token: %q", token)
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(data, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

// witnessBreakers holds requests in the upstream and counts how many came
// through: max_requests of the route's own class.
func witnessBreakers(t *testing.T, s *harness.Stack, slow *harness.Upstream) {
	for _, class := range []struct {
		path  string
		admit int64
	}{{"/narrow", 2}, {"/important", 5}} {
		release := make(chan struct{})
		slow.Handle(func(http.ResponseWriter, *http.Request) { <-release })
		before := slow.Count()
		load := traffic.Start(traffic.Load{Request: traffic.Request{URL: s.URL(class.path)}, Count: 12, Workers: 12})
		// The answers of the refused come while the admitted are held.
		time.Sleep(300 * time.Millisecond)
		harness.Eventually(t, 3*time.Second, "the admitted arrive", func() error {
			if n := slow.Count() - before; n < class.admit {
				return fmt.Errorf("%d arrived", n)
			}
			return nil
		})
		close(release)
		r := load.Wait()
		if n := slow.Count() - before; n != class.admit || r.Status[okOnly] != int(class.admit) || r.Status[http.StatusServiceUnavailable] != 12-int(class.admit) {
			t.Errorf("%s: %d of 12 came through, want %d: %s", class.path, n, class.admit, r)
		}
		slow.Handle(nil)
	}
}

// witnessRetries counts the tries that reach an upstream which always fails.
func witnessRetries(t *testing.T, s *harness.Stack, failing *harness.Upstream) {
	failing.Handle(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	for _, test := range []struct {
		method string
		header map[string]string
		tries  int64
	}{
		{"GET", nil, 3},
		{"DELETE", nil, 3},
		{"POST", nil, 1},
		{"PATCH", nil, 1},
		{"POST", map[string]string{"idempotency-key": "7"}, 3},
	} {
		before := failing.Count()
		a := traffic.Request{Method: test.method, URL: s.URL("/failing"), Header: test.header}.Do(t, nil)
		if n := failing.Count() - before; n != test.tries || a.Status != http.StatusServiceUnavailable {
			t.Errorf("%s %v: %d tries, want %d; answered %d", test.method, test.header, n, test.tries, a.Status)
		}
	}
}

// witnessNoPanic: endpoints that are all known to be down get nothing.
func witnessNoPanic(t *testing.T, s *harness.Stack, all ...*harness.Upstream) {
	for _, u := range all {
		u.SetHealthy(false)
	}
	harness.Eventually(t, 10*time.Second, "both are out", func() error {
		if a := get(t, s, "/sick", nil); a.Status != http.StatusServiceUnavailable {
			return fmt.Errorf("%d", a.Status)
		}
		return nil
	})
	before := all[0].Count() + all[1].Count()
	for range 30 {
		if a := get(t, s, "/sick", nil); a.Status != http.StatusServiceUnavailable {
			t.Errorf("%d %s", a.Status, a.Body)
		}
	}
	if n := all[0].Count() + all[1].Count() - before; n != 0 {
		t.Errorf("%d requests went to endpoints that are down", n)
	}
}

// witnessEjection: an endpoint that fails requests and passes health checks
// stays out for its time.
func witnessEjection(t *testing.T, s *harness.Stack, liar *harness.Upstream) {
	liar.Handle(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	harness.Eventually(t, 10*time.Second, "the liar is ejected", func() error {
		r := traffic.Run(traffic.Load{Request: traffic.Request{URL: s.URL("/liar")}, Count: 10})
		if r.Status[okOnly] != 10 {
			return fmt.Errorf("%s", r)
		}
		return nil
	})
	before := liar.Count()
	time.Sleep(700 * time.Millisecond) // several health checks, all good
	r := traffic.Run(traffic.Load{Request: traffic.Request{URL: s.URL("/liar")}, Count: 20})
	if n := liar.Count() - before; n != 0 || r.Status[okOnly] != 20 {
		t.Errorf("%d of 20 requests went to the ejected endpoint: %s", n, r)
	}
}

// witnessFailover: the next level serves when the one before is down, not earlier.
func witnessFailover(t *testing.T, s *harness.Stack, first *harness.Upstream) {
	for range 20 {
		if a := get(t, s, "/spare", nil); a.Header.Get("x-upstream") != "first" {
			t.Fatalf("%d from %q", a.Status, a.Header.Get("x-upstream"))
		}
	}
	first.SetHealthy(false)
	harness.Eventually(t, 10*time.Second, "the second level serves", func() error {
		if a := get(t, s, "/spare", nil); a.Header.Get("x-upstream") != "second" {
			return fmt.Errorf("%d from %q", a.Status, a.Header.Get("x-upstream"))
		}
		return nil
	})
}

func witnessMirror(t *testing.T, s *harness.Stack, copied *harness.Upstream) {
	before := copied.Count()
	const sent = 400
	if r := traffic.Run(traffic.Load{Request: traffic.Request{URL: s.URL("/mirrored")}, Count: sent, Workers: 4}); r.Status[okOnly] != sent {
		t.Fatalf("%s", r)
	}
	// Six standard deviations of 400 fair coins are 60.
	harness.Eventually(t, 5*time.Second, "about half is mirrored", func() error {
		if n := copied.Count() - before; n < sent/2-60 || n > sent/2+60 {
			return fmt.Errorf("%d of %d were mirrored", n, sent)
		}
		return nil
	})
}

func witnessHungLimiter(t *testing.T, s *harness.Stack) {
	s.RateLimit[0].Signal(t, syscall.SIGSTOP)
	defer s.RateLimit[0].Signal(t, syscall.SIGCONT)
	begin := time.Now()
	a := get(t, s, "/slow-limit", nil)
	if took := time.Since(begin); a.Status != okOnly || took > 2*time.Second {
		t.Errorf("%d after %v: %s", a.Status, took, a.Body)
	}
}

// TestWitnessUpstreamName: a certificate of the right authority with another
// name is no upstream of ours.
func TestWitnessUpstreamName(t *testing.T) {
	cert, key := harness.Certificate(t, "right.test")
	up := harness.NewTLSUpstream(t, cert, key)
	s := harness.NewStack(t, harness.Options{
		Gateway: head + `upstreams:
  - {name: right, endpoints: ["${up}"], tls: {ca: file:ca.pem, san: right.test, sni: right.test}}
  - {name: wrong, endpoints: ["${up}"], tls: {ca: file:ca.pem, san: wrong.test, sni: right.test}}
routes:
  - {name: right, match: {path: {prefix: /right}}, auth: public, upstream: right}
  - {name: wrong, match: {path: {prefix: /wrong}}, auth: public, upstream: wrong}
`, Vars: map[string]string{"up": up.Address}, Files: map[string]string{"ca.pem": cert},
	})
	if a := get(t, s, "/right", nil); a.Status != okOnly {
		t.Errorf("the right name: %d %s", a.Status, a.Body)
	}
	before := up.Count()
	if a := get(t, s, "/wrong", nil); a.Status != http.StatusServiceUnavailable || up.Count() != before {
		t.Errorf("the wrong name: %d, %d requests reached it", a.Status, up.Count()-before)
	}
}

// TestWitnessOnError: with the store gone, each limit does what it says, in
// the answer of the limiter itself.
func TestWitnessOnError(t *testing.T) {
	up := harness.NewUpstream(t, "up")
	redis := harness.StartRedis(t)
	s := harness.NewStack(t, harness.Options{
		Gateway: head + `upstreams: [{name: up, endpoints: ["${up}"]}]
routes:
  - {name: closed, match: {path: {prefix: /closed}}, auth: public, rate_limit: [{limit: 1000, per: hour, on_error: closed}], upstream: up}
  - {name: open, match: {path: {prefix: /open}}, auth: public, rate_limit: [{limit: 2, per: hour, on_error: open}], upstream: up}
  - {name: local, match: {path: {prefix: /local}}, auth: public, rate_limit: [{limit: 2, per: hour, on_error: local}], upstream: up}
`, Vars: map[string]string{"up": up.Address}, RedisURL: redis.URL,
	})
	if a := get(t, s, "/closed", nil); a.Status != okOnly {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	redis.Kill()
	harness.Eventually(t, 5*time.Second, "closed refuses", func() error {
		if a := get(t, s, "/closed", nil); a.Status != http.StatusServiceUnavailable || !strings.Contains(a.Body, "limiter_unavailable") {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return nil
	})
	for range 5 {
		if a := get(t, s, "/open", nil); a.Status != okOnly {
			t.Errorf("open: %d %s", a.Status, a.Body)
		}
	}
	refused := 0
	for range 5 {
		if a := get(t, s, "/local", nil); a.Status == http.StatusTooManyRequests {
			refused++
		}
	}
	if refused != 3 {
		t.Errorf("local: %d of 5 refused, want 3", refused)
	}
}
