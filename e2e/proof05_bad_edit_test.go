package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
)

const steadyGateway = head + `
upstreams:
  - {name: a, endpoints: ["${a}"]}
routes:
  - {name: main, match: {path: {prefix: /main}}, auth: public, upstream: a}
`

// TestProof05BadEdit: a file that is refused changes nothing that is served,
// shows where an operator looks, and the next good one lands.
func TestProof05BadEdit(t *testing.T) {
	up := harness.NewUpstream(t, "a")
	s := harness.NewStack(t, harness.Options{Gateway: steadyGateway, Vars: map[string]string{"a": up.Address}})
	load := traffic.Start(traffic.Load{Request: traffic.Request{URL: s.URL("/main")}, Rate: 100, Duration: time.Minute})
	if status, body := s.Readyz(t); status != okOnly || !strings.Contains(body, `"status":"ok"`) {
		t.Fatalf("/readyz before: %d %s", status, body)
	}
	for name, bad := range map[string]string{
		"unknown upstream": strings.Replace(steadyGateway, "auth: public, upstream: a}", "auth: public, upstream: b}", 1),
		"no YAML":          steadyGateway + "\n  : [",
		"empty":            "",
	} {
		s.Save(t, bad)
		harness.Eventually(t, 3*time.Second, name+" shows in /readyz", func() error {
			status, body := s.Readyz(t)
			if status != okOnly || !strings.Contains(body, `"status":"degraded"`) || !strings.Contains(body, "gateway.yaml:") {
				return fmt.Errorf("%d %s", status, body)
			}
			return nil
		})
		if harness.Metric(t, s.Address(t, "admin"), "tollgate_config_faults") < 1 {
			t.Errorf("%s: tollgate_config_faults is 0", name)
		}
		if !strings.Contains(s.XDS.Log(), "gateway file refused") {
			t.Errorf("%s: not in the log", name)
		}
	}
	s.Save(t, steadyGateway+"  - {name: new, match: {path: {prefix: /new}}, auth: public, upstream: a}\n")
	awaitStatus(t, s, "/new", nil, okOnly, 3*time.Second)
	harness.Eventually(t, 3*time.Second, "/readyz is well again", func() error {
		if _, body := s.Readyz(t); !strings.Contains(body, `"status":"ok"`) {
			return fmt.Errorf("%s", body)
		}
		return nil
	})
	clean(t, "load during bad edits", load.Stop(), okOnly)
}
