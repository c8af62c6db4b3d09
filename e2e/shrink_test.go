package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
)

const shrinkGateway = head + `
defaults: {auth: public}
upstreams:
  - {name: up, discovery: {registry: up}}
routes:
  - {name: up, match: {path: {prefix: /up}}, upstream: up}
`

// TestShrink: a change that takes away too much waits for an operator's word, and
// a control plane that lost its registry takes no endpoints from anybody.
func TestShrink(t *testing.T) {
	ups := harness.NewUpstreams(t, "a", "b")
	many := shrinkGateway
	for i := range 20 {
		many += fmt.Sprintf("  - {name: r%d, match: {path: {exact: /r/%d}}, respond: {status: 204}}\n", i, i)
	}
	s := harness.NewStack(t, harness.Options{Gateway: many})
	token, errs, code := harness.Run(t, "registry-token", "--service", "up", "--data-dir", s.DataDir())
	if code != 0 {
		t.Fatal(errs)
	}
	register := func(address string) {
		t.Helper()
		request := traffic.Request{
			Method: http.MethodPut, URL: "http://" + s.Address(t, "admin") + "/v1/registry/up/1",
			Body: fmt.Sprintf(`{"address":%q,"ttl_s":300}`, address), Header: withToken(strings.TrimSpace(token)),
		}
		if answer := request.Do(t, nil); answer.Status != http.StatusNoContent {
			t.Fatalf("registration: %d %s", answer.Status, answer.Body)
		}
	}
	register(ups[0].Address)
	awaitStatusThrough(t, s, "/up", nil, okOnly)
	awaitStatusThrough(t, s, "/r/19", nil, http.StatusNoContent)

	t.Run("a file cut short waits", func(t *testing.T) {
		s.Save(t, shrinkGateway)
		harness.Eventually(t, 5*time.Second, "it shows", func() error {
			_, body := s.Readyz(t)
			if !strings.Contains(body, "leave 1 of 21 routes") {
				return fmt.Errorf("/readyz: %s", body)
			}
			return nil
		})
		if status := get(t, s, "/r/19", nil).Status; status != http.StatusNoContent {
			t.Errorf("a route of it answers %d", status)
		}
		if status := s.Status(t); !strings.Contains(status, "tollgate allow-shrink") {
			t.Errorf("status does not say what to do:\n%s", status)
		}
		if _, errs, code := harness.Run(t, "allow-shrink", "instances", "--admin-address", s.Address(t, "admin"), "--data-dir", s.DataDir()); code != 0 || !strings.Contains(errs, "no instances wait") {
			t.Fatal(errs)
		}
		if _, errs, code := harness.Run(t, "allow-shrink", "--admin-address", s.Address(t, "admin"), "--data-dir", s.DataDir()); code != 2 {
			t.Fatalf("without a word of what: exit %d: %s", code, errs)
		}
		if status := get(t, s, "/r/19", nil).Status; status != http.StatusNoContent {
			t.Errorf("a route answers %d after another thing was allowed", status)
		}
		if _, errs, code := harness.Run(t, "allow-shrink", "files", "--admin-address", s.Address(t, "admin"), "--data-dir", s.DataDir()); code != 0 || !strings.Contains(errs, "leave 1 of 21 routes") {
			t.Fatal(errs)
		}
		awaitStatusThrough(t, s, "/r/19", nil, http.StatusNotFound)
		if _, body := s.Readyz(t); strings.Contains(body, "routes (without") {
			t.Errorf("it shows for ever: %s", body)
		}
	})
	t.Run("a registry that is lost", func(t *testing.T) {
		load := traffic.Start(traffic.Load{Request: traffic.Request{URL: s.URL("/up")}, Rate: 100, Duration: time.Minute})
		var kept []string
		harness.Eventually(t, 5*time.Second, "the registry is kept", func() (err error) {
			if kept, err = filepath.Glob(filepath.Join(s.DataDir(), "registry*.json")); len(kept) == 0 {
				return os.ErrNotExist
			}
			return err
		})
		s.XDS.Kill()
		for _, file := range kept {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}
		s.RestartControlPlane(t)
		time.Sleep(3 * time.Second) // the proxy is back, the instance was not heard
		clean(t, "lost", load.Stop(), okOnly)
		if !strings.Contains(s.Status(t), "edge-1") {
			t.Errorf("the proxy is not back:\n%s", s.Status(t))
		}
		register(ups[1].Address)
		harness.Eventually(t, 5*time.Second, "what registers counts", func() error {
			if r := traffic.Run(traffic.Load{Request: traffic.Request{URL: s.URL("/up")}, Count: 10}); r.By["b"] != 10 {
				return fmt.Errorf("answers by %v", r.By)
			}
			return nil
		})
	})
}
