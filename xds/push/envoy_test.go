package push_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"tollgate/envoy"
	"tollgate/xds/compile"
	"tollgate/xds/config"
	"tollgate/xds/config/language"
	"tollgate/xds/endpoint"
	"tollgate/xds/ledger"
	"tollgate/xds/push"
	"tollgate/xds/release"
)

// plane is a control plane at a real address.
type plane struct {
	*push.Server
	address string
	book    *ledger.Ledger
	metrics *prometheus.Registry
	stop    func()
}

func newPlane(t *testing.T, address string) *plane {
	t.Helper()
	return newPlaneRetiring(t, address, 0)
}

// newPlaneRetiring is one in which what nobody names any more stays so long.
func newPlaneRetiring(t *testing.T, address string, retire time.Duration) *plane {
	t.Helper()
	p := &plane{book: ledger.New(time.Now), metrics: prometheus.NewRegistry()}
	var err error
	if p.Server, err = push.New(push.Config{Log: slog.New(slog.DiscardHandler), Ledger: p.book, Metrics: p.metrics, Retire: retire}); err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	p.address = lis.Addr().String()
	g := grpc.NewServer(push.ServerOptions()...)
	p.Register(g)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.Run(ctx) })
	wg.Go(func() { _ = g.Serve(lis) })
	p.stop = sync.OnceFunc(func() { g.Stop(); cancel(); wg.Wait() })
	t.Cleanup(p.stop)
	return p
}

// responses is how many were sent, in all.
func (p *plane) responses(t *testing.T) float64 {
	t.Helper()
	return p.sum(t, "tollgate_xds_responses_total")
}

// sum is that of a metric over its labels.
func (p *plane) sum(t *testing.T, name string) (n float64) {
	t.Helper()
	families, err := p.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name {
				n += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return n
}

// states are the ledger's, by type.
func (p *plane) states() map[string]ledger.State {
	out := map[string]ledger.State{}
	for _, line := range p.book.Lines() {
		out[line.Type] = line.State
	}
	return out
}

func freePort(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lis.Close() }()
	return lis.Addr().String()
}

// compiled is the release of a gateway file.
func compiled(t *testing.T, text string) *release.Release {
	t.Helper()
	gw, _, err := language.Parse([]config.Source{{Name: "gateway.yaml", Data: []byte(text)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	objects, _ := compile.Compile(gw, compile.Scope{ExtAuthz: []string{"127.0.0.1:9"}, RateLimit: []string{"127.0.0.1:9"}})
	objects = append(objects, endpoint.Objects(gw.Upstreams, nil)...)
	return made(t, objects)
}

// startEnvoy runs the real proxy against a control plane until the test ends.
func startEnvoy(t *testing.T, xds string) {
	t.Helper()
	path, err := envoy.Locate(t.Context(), os.Getenv("TOLLGATE_ENVOY"), filepath.Join("..", ".."))
	if err != nil {
		t.Fatalf("the tests run on the real Envoy: %v", err)
	}
	text, err := envoy.Bootstrap{NodeID: "edge-1", XDSServers: []string{xds}, AdminAddress: freePort(t)}.JSON()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "bootstrap.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-c", file, "--use-dynamic-base-id", "--concurrency", "2", "--log-level", "warning",
		"--drain-time-s", "2", "--drain-strategy", "immediate")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("Envoy says:\n%s", out.String())
		}
	})
}

func within(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(d); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", d, what)
		}
	}
}

// backend answers every request with its name.
func backend(t *testing.T, name string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) }))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func gateway(listener string, parts ...string) string {
	return "version: 1\nlisteners:\n  - {name: http, address: \"" + listener + "\"}\n" + strings.Join(parts, "\n") + "\n"
}

func upstreams(pairs ...string) string {
	var b strings.Builder
	b.WriteString("upstreams:\n")
	for i := 0; i < len(pairs); i += 2 {
		fmt.Fprintf(&b, "  - {name: %s, endpoints: [\"%s\"]}\n", pairs[i], pairs[i+1])
	}
	return b.String()
}

func route(to string) string {
	return "routes:\n  - {name: all, match: {path: {prefix: /}}, auth: public, upstream: " + to + "}"
}

// TestEnvoy: the real proxy takes a release, moves to a new cluster without a
// failed request, outlives its control plane and is sent nothing by the next.
func TestEnvoy(t *testing.T) {
	one, two, listener := backend(t, "one"), backend(t, "two"), freePort(t)
	first := newPlane(t, "127.0.0.1:0")
	first.Publish(compiled(t, gateway(listener, upstreams("one", one), route("one"))))
	startEnvoy(t, first.address)
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	get := func() (int, string) {
		response, err := client.Get("http://" + listener + "/")
		if err != nil {
			return 0, err.Error()
		}
		defer func() { _ = response.Body.Close() }()
		body, _ := io.ReadAll(response.Body)
		return response.StatusCode, string(body)
	}
	within(t, 15*time.Second, "first 200", func() bool { status, body := get(); return status == 200 && body == "one" })
	serving := func(what, want string) {
		t.Helper()
		within(t, 5*time.Second, what, func() bool {
			status, body := get()
			if status != 200 {
				t.Fatalf("%s: %d %s", what, status, body)
			}
			return body == want
		})
	}
	synced := func(p *plane) func() bool {
		return func() bool {
			states := p.states()
			for _, typ := range []string{"cluster", "clusterloadassignment", "listener", "routeconfiguration"} {
				if states[typ] != ledger.Synced {
					return false
				}
			}
			return true
		}
	}
	within(t, 5*time.Second, "all taken", synced(first))

	last := compiled(t, gateway(listener, upstreams("two", two), route("two")))
	first.Publish(last)
	serving("a new cluster in place of the old", "two")
	within(t, 5*time.Second, "all taken", synced(first))
	time.Sleep(2600 * time.Millisecond) // the old cluster drains and goes
	serving("after the old cluster went", "two")

	first.stop()
	for range 20 {
		serving("without a control plane", "two")
	}
	second := newPlane(t, first.address)
	second.Publish(last)
	within(t, 10*time.Second, "reconnect", func() bool { return second.connected(t) })
	time.Sleep(500 * time.Millisecond)
	if n := second.responses(t); n != 0 {
		t.Errorf("the restarted control plane sent %v responses, want none: %+v", n, second.book.Lines())
	}
	second.Publish(compiled(t, gateway(listener, upstreams("one", one, "two", two), route("one"))))
	serving("an edit after the restart", "one")
}

func (p *plane) connected(t *testing.T) bool {
	t.Helper()
	families, err := p.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "tollgate_xds_streams" {
			return family.GetMetric()[0].GetGauge().GetValue() > 0
		}
	}
	return false
}
