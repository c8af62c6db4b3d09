package ratelimit_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	limitsv1 "tollgate/api/limits/v1"
	"tollgate/internal/envelope"
	"tollgate/ratelimit/store/redistest"
)

// envoyPath finds the real Envoy; a test without it fails.
func envoyPath(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("TOLLGATE_ENVOY"); path != "" {
		return path
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test: run it inside the module, or set TOLLGATE_ENVOY")
		}
	}
	path := filepath.Join(dir, ".tools", "envoy")
	if _, err := os.Stat(path); err != nil {
		t.Fatal("no Envoy at .tools/envoy: run `tollgate envoy install`, or set TOLLGATE_ENVOY")
	}
	return path
}

// startEnvoy returns the URL of an Envoy that asks the limiter.
func startEnvoy(t *testing.T, limiter net.Addr) string {
	t.Helper()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "upstream") }))
	t.Cleanup(upstream.Close)
	template, err := os.ReadFile("testdata/envoy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	port := func(a net.Addr) string { return fmt.Sprint(a.(*net.TCPAddr).Port) }
	config := strings.NewReplacer("port_value: LIMITER", "port_value: "+port(limiter), "port_value: UPSTREAM", "port_value: "+port(upstream.Listener.Addr())).Replace(string(template))
	dir := t.TempDir()
	configPath, adminPath := filepath.Join(dir, "envoy.yaml"), filepath.Join(dir, "admin")
	if err := os.WriteFile(configPath, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var output logBuffer
	cmd := exec.Command(envoyPath(t), "-c", configPath, "--admin-address-path", adminPath, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error")
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for begin := time.Now(); time.Since(begin) < 20*time.Second; time.Sleep(20 * time.Millisecond) {
		if address := listenerAddress(adminPath); address != "" {
			return "http://" + address
		}
	}
	t.Fatalf("Envoy does not come up: %s", output.String())
	return ""
}

// listenerAddress asks a starting Envoy's admin for its listener; "" not yet.
func listenerAddress(adminPath string) string {
	admin, err := os.ReadFile(adminPath)
	if err != nil || len(admin) == 0 {
		return ""
	}
	response, err := http.Get("http://" + string(admin) + "/listeners")
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	_, address, _ := strings.Cut(strings.TrimSpace(string(text)), "::")
	return address
}

type reply struct {
	status int
	header http.Header
	body   string
}

func get(t *testing.T, url string) reply {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{response.StatusCode, response.Header, string(body)}
}

// TestEnvoy: what a client sees through the real Envoy.
func TestEnvoy(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	redis := redistest.Start(t)
	cp := startControlPlane(t)
	limited := rule("route/limited/0", 6)
	limited.Window, limited.Unit, limited.By, limited.Message = durationpb.New(10*time.Hour), "", []string{"query:q"}, "Slow down"
	limited.Algorithm, limited.Burst = limitsv1.Rule_GCRA, 2
	watch, closed := rule("gateway/watch", 1), rule("route/closed/0", 100)
	watch.Shadow = true
	closed.OnError = limitsv1.Rule_CLOSED
	cp.set(t, "all", rule("gateway/all", 1000), limited, watch, closed)
	lim := startLimiter(t, cp.address, redis.URL)
	await(t, "never ready", func() bool { return lim.server.Ready() == nil })
	edge := startEnvoy(t, lim.address)

	first := get(t, edge+"/limited?q=a")
	if first.status != 200 || first.header.Get("x-decision") != "route/limited/0 ok" {
		t.Errorf("first: %+v", first)
	}
	if got, want := first.header["X-Ratelimit-Limit"], `6, 1000;w=2592000;name="gateway/all", 6;w=36000;name="route/limited/0"`; len(got) != 1 || got[0] != want {
		t.Errorf("x-ratelimit-limit %q, want %q", got, want)
	}
	if got := first.header.Get("x-ratelimit-remaining") + " " + first.header.Get("x-ratelimit-reset"); got != "1 6000" {
		t.Errorf("remaining and reset %q, want the bucket's", got)
	}
	if second := get(t, edge+"/limited?q=a"); second.status != 200 || second.header.Get("x-decision") != "gateway/watch shadow" {
		t.Errorf("second: %+v", second)
	}
	over := get(t, edge+"/limited?q=a")
	var body envelope.Body
	if err := json.Unmarshal([]byte(over.body), &body); over.status != 429 || err != nil || body.Error.Reason != "over_limit" || body.Error.Message != "Slow down" {
		t.Errorf("third: %+v", over)
	}
	if got := over.header; len(got["Content-Type"]) != 1 || got.Get("content-type") != "application/json" ||
		len(got["Retry-After"]) != 1 || got.Get("retry-after") != got.Get("x-ratelimit-reset") || got.Get("x-ratelimit-remaining") != "0" {
		t.Errorf("third: headers %v", got)
	}
	if got := over.header.Get("x-decision"); got != "route/limited/0 over_limit" {
		t.Errorf("third: decision %q", got)
	}
	for _, query := range []string{"", "?q=b", "?q=%28none%29x"} {
		if other := get(t, edge+"/limited"+query); other.status != 200 {
			t.Errorf("%q counts with q=a: %+v", query, other)
		}
	}
	for path, want := range map[string]int{"/unknown-open": 200, "/unknown-deny": 503, "/closed": 200} {
		if got := get(t, edge+path); got.status != want {
			t.Errorf("%s: %d, want %d", path, got.status, want)
		}
	}
	redis.Freeze(t)
	if got := get(t, edge+"/limited?q=frozen"); got.status != 200 || got.header.Get("x-ratelimit-remaining") != "1" {
		t.Errorf("local with Redis frozen: %+v", got)
	}
	if got := get(t, edge+"/closed"); got.status != 503 {
		t.Errorf("closed with Redis frozen: %d", got.status)
	}
	redis.Thaw(t)
	await(t, "Redis goes on and is not used", func() bool { return get(t, edge+"/closed").status == 200 })
	redis.Kill()
	for range 3 {
		if got := get(t, edge+"/closed"); got.status != 503 {
			t.Errorf("closed without Redis: %d, want 503", got.status)
		}
		if got := get(t, edge+"/unknown-open"); got.status != 200 {
			t.Errorf("unknown, open, without Redis: %d", got.status)
		}
	}
	if got := get(t, edge+"/limited?q=local"); got.status != 200 || got.header.Get("x-ratelimit-remaining") != "1" {
		t.Errorf("local without Redis: %+v", got)
	}
}
