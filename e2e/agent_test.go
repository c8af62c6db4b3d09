package e2e_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/harness"
)

const agentGateway = head + `
upstreams:
  - {name: up, endpoints: ["${up}"]}
routes:
  - {name: up, match: {path: {prefix: /up}}, upstream: up, auth: public}
`

const agentMore = `  - {name: more, match: {path: {prefix: /more}}, respond: {status: 204}, auth: public}
`

// edge is a supervised proxy with its agent.
type edge struct {
	*harness.Process
	dir, admin string
	servers    string
	node       string
}

func (e *edge) start(t *testing.T) {
	t.Helper()
	e.Process = harness.Start(t, harness.Command{Name: "edge", Path: harness.Tollgate(t), Args: []string{
		"envoy", "run", "--json", "--xds-servers", e.servers, "--data-dir", e.dir, "--admin-address", e.admin, "--node-id", e.node, "--envoy-concurrency", "1",
		"--envoy-path", harness.EnvoyPath(t),
	}})
}

// again: the machine of the proxy lost all that ran there.
func (e *edge) again(t *testing.T) {
	t.Helper()
	e.Kill()
	e.start(t)
}

// TestAgent: a proxy that starts while no control plane answers serves what it
// last accepted, and nothing else; as soon as one answers it serves that.
func TestAgent(t *testing.T) {
	up := harness.NewUpstreams(t, "up")[0]
	s := harness.NewStack(t, harness.Options{Gateway: agentGateway, NoEnvoy: true, Vars: map[string]string{"up": up.Address}})
	e := &edge{dir: harness.TempDir(t), admin: harness.FreeAddress(t), servers: s.Address(t, "xds"), node: "edge-1"}
	serves := func(path string, status int) {
		t.Helper()
		harness.Eventually(t, 20*time.Second, path+" is answered as it should be", func() error {
			got, _, err := harness.Get(s.URL(path))
			if err == nil && got != status {
				err = fmt.Errorf("got %d, want %d", got, status)
			}
			return err
		})
	}
	faults := func(words string) {
		t.Helper()
		harness.Eventually(t, 10*time.Second, "/readyz says "+words, func() error {
			_, body, err := harness.Get("http://" + e.admin + "/readyz")
			if err == nil && !strings.Contains(body, words) {
				err = fmt.Errorf("it says %s", body)
			}
			return err
		})
	}
	e.start(t)
	serves("/up", http.StatusOK)
	serves("/more", http.StatusNotFound)
	accepted := filepath.Join(e.dir, "accepted")
	harness.Eventually(t, 10*time.Second, "all types are kept", func() error {
		names, err := filepath.Glob(filepath.Join(accepted, "*.accepted"))
		if len(names) < 4 {
			err = os.ErrNotExist
		}
		return err
	})

	s.XDS.Kill()
	e.again(t)
	serves("/up", http.StatusOK)
	faults("no control plane answers")
	if n := harness.Metric(t, e.admin, "tollgate_agent_fallback"); n != 1 {
		t.Errorf("tollgate_agent_fallback is %v without a control plane", n)
	}

	s.Save(t, agentGateway+agentMore)
	s.RestartControlPlane(t)
	serves("/more", http.StatusNoContent)
	faults(`"faults":[]`)

	s.Save(t, agentGateway)
	serves("/more", http.StatusNotFound)
	time.Sleep(1500 * time.Millisecond) // what is accepted is on disk a second later
	s.XDS.Kill()
	// One that takes connections and never says a word.
	mute(t, s.Address(t, "xds"))
	e.again(t)
	serves("/up", http.StatusOK)
	serves("/more", http.StatusNotFound)

	e.node = "edge-2"
	e.again(t)
	silent(t, s.URL("/up"), "another node")
	e.node = "edge-1"

	file := filepath.Join(accepted, "envoy.config.listener.v3.Listener.accepted")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data[:len(data)-3], 0o600); err != nil {
		t.Fatal(err)
	}
	e.again(t)
	silent(t, s.URL("/up"), "a damaged file")
	if !strings.Contains(e.Log(), "it is damaged") {
		t.Errorf("nobody is told of a damaged file:\n%s", e.Log())
	}
	info, err := os.Stat(accepted)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("what was accepted, with its secrets, lies open: %v, %v", info.Mode(), err)
	}
}

// mute listens on the address and answers nobody.
func mute(t *testing.T, address string) {
	t.Helper()
	path := strings.TrimPrefix(address, "unix:")
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
}

// silent: nothing is served within the time in which all else was.
func silent(t *testing.T, url, why string) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if status, _, err := harness.Get(url); err == nil {
			t.Fatalf("%s: %d is served from what another accepted, or half of it", why, status)
		}
	}
}
