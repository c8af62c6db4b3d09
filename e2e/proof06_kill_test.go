package e2e_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
)

const killGateway = head + `
defaults: {auth: ` + either + `}
upstreams:
  - {name: open, endpoints: ["${open}"]}
  - {name: closed, endpoints: ["${closed}"]}
routes:
  - {name: open, match: {path: {prefix: /open}}, upstream: open, rate_limit: [{limit: 1000000, per: hour, on_error: open}]}
  - {name: closed, match: {path: {prefix: /closed}}, upstream: closed, rate_limit: [{limit: 1000000, per: hour, on_error: closed}]}
`

// TestProof06Kill: kill -9 of each role under 200 requests a second. What comes
// back lives as long as the whole test, not as its part.
func TestProof06Kill(t *testing.T) {
	whole := t
	ups := harness.NewUpstreams(t, "open", "closed")
	s := harness.NewStack(t, harness.Options{
		Gateway: killGateway, ExtAuthz: 2, RateLimit: 2, Keys: []harness.Key{{Name: "key", Tenant: "acme", Permissions: []string{"*"}}},
		Vars: map[string]string{"open": ups[0].Address, "closed": ups[1].Address},
	})
	during := func(path string, act func()) *traffic.Result {
		load := traffic.Start(traffic.Load{Request: traffic.Request{URL: s.URL(path), Header: withKey(s.Secrets["key"])}, Rate: 200, Duration: time.Minute})
		time.Sleep(500 * time.Millisecond)
		act()
		time.Sleep(1500 * time.Millisecond)
		return load.Stop()
	}
	t.Run("control plane: 0 failed, gone and back", func(t *testing.T) {
		clean(t, "killed", during("/open", s.XDS.Kill), okOnly)
		clean(t, "back", during("/open", func() { s.RestartControlPlane(whole) }), okOnly)
	})
	t.Run("one of two authorization servers: 0 failed", func(t *testing.T) {
		clean(t, "killed", during("/open", s.ExtAuthz[0].Kill), okOnly)
		clean(t, "back", during("/open", func() { s.RestartExtAuthz(whole, 0) }), okOnly)
	})
	t.Run("one of two limiters: 0 failed", func(t *testing.T) {
		clean(t, "killed", during("/closed", s.RateLimit[0].Kill), okOnly)
		clean(t, "back", during("/closed", func() { s.RestartRateLimit(whole, 0) }), okOnly)
	})
	t.Run("both limiters: each route by its on_error", func(t *testing.T) {
		clean(t, "open", during("/open", func() { s.RateLimit[0].Kill(); s.RateLimit[1].Kill() }), okOnly)
		reached := ups[1].Count()
		r := during("/closed", func() {})
		clean(t, "closed", r, http.StatusServiceUnavailable)
		if n := ups[1].Count() - reached; n != 0 {
			t.Errorf("%d requests reached the upstream of a closed limit", n)
		}
		wantEnvelope(t, get(t, s, "/closed", withKey(s.Secrets["key"])), http.StatusServiceUnavailable, "UNAVAILABLE", "limiter_unavailable")
		s.RestartRateLimit(whole, 0)
		s.RestartRateLimit(whole, 1)
		awaitStatusThrough(t, s, "/closed", withKey(s.Secrets["key"]), okOnly)
	})
	t.Run("both authorization servers: nothing reaches a protected upstream", func(t *testing.T) {
		s.ExtAuthz[0].Kill()
		s.ExtAuthz[1].Kill()
		reached := ups[0].Count()
		clean(t, "none left", during("/open", func() {}), http.StatusServiceUnavailable)
		if n := ups[0].Count() - reached; n != 0 {
			t.Errorf("%d requests reached the upstream", n)
		}
		wantEnvelope(t, get(t, s, "/open", withKey(s.Secrets["key"])), http.StatusServiceUnavailable, "UNAVAILABLE", "authz_unavailable")
		s.RestartExtAuthz(whole, 0)
		awaitStatusThrough(t, s, "/open", withKey(s.Secrets["key"]), okOnly)
	})
}

// awaitStatusThrough waits for recovery: until then any refusal is right.
func awaitStatusThrough(t *testing.T, s *harness.Stack, path string, header map[string]string, status int) {
	t.Helper()
	harness.Eventually(t, 10*time.Second, path+" recovers", func() error {
		if a := get(t, s, path, header); a.Status != status {
			return errStatus(a)
		}
		return nil
	})
}

func errStatus(a traffic.Answer) error { return fmt.Errorf("it answers %d %s", a.Status, a.Body) }
