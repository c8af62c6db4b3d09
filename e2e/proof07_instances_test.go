package e2e_test

import (
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
)

const instancesGateway = head + `
defaults:
  auth: public
  retry: {attempts: 3, retry_on: [connect-failure, refused-stream, reset, "503"], backoff: {base: 10ms, max: 50ms}}
upstreams:
  - name: checked
    endpoints: ["${a}", "${b}"]
    health_check: {path: /healthz, interval: 250ms, timeout: 200ms, healthy_threshold: 1, unhealthy_threshold: 1}
  - name: judged
    endpoints: ["${c}", "${d}"]
    outlier_detection: {failure_rate: 50%, min_requests: 10, interval: 500ms, eject_for: 1s, max_ejected: 50%}
routes:
  - {name: checked, match: {path: {prefix: /checked}}, upstream: checked}
  - {name: judged, match: {path: {prefix: /judged}}, upstream: judged, retry: none}
`

// TestProof07Instances: a killed instance costs no client anything once it is
// detected; one that fails too often is ejected and comes back.
func TestProof07Instances(t *testing.T) {
	ups := harness.NewUpstreams(t, "a", "b", "c", "d")
	s := harness.NewStack(t, harness.Options{
		Gateway: instancesGateway,
		Vars:    map[string]string{"a": ups[0].Address, "b": ups[1].Address, "c": ups[2].Address, "d": ups[3].Address},
	})
	t.Run("killed, detected, returned", func(t *testing.T) {
		ups[0].Stop()
		harness.Eventually(t, 3*time.Second, "the health check takes it out", func() error {
			if flags := s.Envoy.Hosts(t, "checked")[ups[0].Address]; flags == "healthy" {
				return fmt.Errorf("it is %s", flags)
			}
			return nil
		})
		r := traffic.Run(traffic.Load{Request: traffic.Request{URL: s.URL("/checked")}, Count: 400, Workers: 4})
		clean(t, "after detection", r, okOnly)
		if r.By["a"] != 0 {
			t.Errorf("the dead instance answered %d", r.By["a"])
		}
		ups[0].Start(t)
		harness.Eventually(t, 3*time.Second, "it is back", func() error {
			if r := traffic.Run(traffic.Load{Request: traffic.Request{URL: s.URL("/checked")}, Count: 10}); r.By["a"] == 0 {
				return fmt.Errorf("answers by %v", r.By)
			}
			return nil
		})
	})
	t.Run("failure_rate ejects and lets return", func(t *testing.T) {
		ups[2].Handle(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
		load := traffic.Start(traffic.Load{Request: traffic.Request{URL: s.URL("/judged")}, Rate: 200, Duration: time.Minute})
		defer load.Stop()
		harness.Eventually(t, 5*time.Second, "it is ejected", func() error {
			if r := traffic.Run(traffic.Load{Request: traffic.Request{URL: s.URL("/judged")}, Count: 20}); r.Not(okOnly) > 0 {
				return fmt.Errorf("%s", r)
			}
			return nil
		})
		if n := s.Envoy.Stats(t, `cluster\.judged\.outlier_detection\.ejections_enforced_failure_percentage`); len(n) == 0 || sum(n) == 0 {
			t.Errorf("ejected for another reason: %v", s.Envoy.Stats(t, `cluster\.judged\.outlier_detection`))
		}
		ups[2].Handle(nil)
		harness.Eventually(t, 10*time.Second, "it returns", func() error {
			if r := traffic.Run(traffic.Load{Request: traffic.Request{URL: s.URL("/judged")}, Count: 20}); r.By["c"] == 0 {
				return fmt.Errorf("answers by %v", r.By)
			}
			return nil
		})
	})
}

func sum(values map[string]int64) int64 {
	total := int64(0)
	for _, v := range values {
		total += v
	}
	return total
}

// TestProof07DemoInstances: registered services come, are killed, and go.
func TestProof07DemoInstances(t *testing.T) {
	run, _ := startRun(t, copyDemo(t), "--demo")
	url := run.Ready.Listeners["http"] + "/api/users"
	header := withToken(run.Ready.Demo.JWT)
	var victim harness.Instance
	for _, i := range run.Ready.Instances {
		if i.Service == "user" {
			victim = i
		}
	}
	if err := syscall.Kill(victim.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	proxy := &harness.Proxy{Process: run, Admin: run.Ready.EnvoyAdmin}
	took := harness.Eventually(t, 10*time.Second, "the health check takes it out", func() error {
		if flags, there := proxy.Hosts(t, "users")[victim.HTTP]; there && flags == "healthy" {
			return fmt.Errorf("it is %s", flags)
		}
		return nil
	})
	t.Logf("out of balance after %s", took)
	clean(t, "after detection", traffic.Run(traffic.Load{Request: traffic.Request{URL: url, Header: header}, Count: 40}), okOnly)
	took = harness.Eventually(t, 15*time.Second, "its time to live ends", func() error {
		if _, there := proxy.Hosts(t, "users")[victim.HTTP]; there {
			return fmt.Errorf("it is still an endpoint")
		}
		return nil
	})
	t.Logf("gone from the endpoints after %s", took)
}
