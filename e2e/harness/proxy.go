package harness

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ProxyOptions say how an Envoy is started.
type ProxyOptions struct {
	Dir     string
	XDS     []string
	NodeID  string
	Workers int
}

// Proxy is an Envoy that has only the bootstrap that we print.
type Proxy struct {
	*Process
	Admin string // unix:PATH, see Get
}

// StartProxy starts an Envoy with the bootstrap of `tollgate envoy bootstrap`
// and the flags that `tollgate run` gives it.
func StartProxy(t TB, o ProxyOptions) *Proxy {
	t.Helper()
	admin := "unix:" + filepath.Join(o.Dir, o.NodeID+".sock")
	bootstrap, errs, code := Run(t, "envoy", "bootstrap", "--xds-servers", strings.Join(o.XDS, ","), "--insecure", "--node-id", o.NodeID, "--envoy-admin-address", admin)
	if code != 0 {
		t.Fatalf("tollgate envoy bootstrap: exit %d\n%s", code, errs)
	}
	file := filepath.Join(o.Dir, o.NodeID+".json")
	if err := os.WriteFile(file, []byte(bootstrap), 0o600); err != nil {
		t.Fatalf("bootstrap: %v", err)
	}
	return &Proxy{Admin: admin, Process: Start(t, Command{Name: o.NodeID, Path: EnvoyPath(t), Args: []string{
		"--config-path", file, "--disable-hot-restart", "--file-flush-interval-msec", "200", "--drain-time-s", "2", "--drain-strategy", "immediate",
		"--log-level", "warning", "--component-log-level", "filter:critical", "--concurrency", strconv.Itoa(max(o.Workers, 1)),
	}})}
}

// AwaitLive waits until Envoy has its first configuration.
func (p *Proxy) AwaitLive(t TB) {
	t.Helper()
	Eventually(t, 20*time.Second, p.Name+" is live", func() error {
		status, body, err := Get("http://" + p.Admin + "/ready")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("/ready says %d %s", status, strings.TrimSpace(body))
		}
		if err != nil && !p.Alive() {
			t.Fatalf("%s ended: exit %d\n%s", p.Name, p.ExitCode(), p.Log())
		}
		return err
	})
}

// Stats returns Envoy's counters and gauges whose names match a regex.
func (p *Proxy) Stats(t TB, regex string) map[string]int64 {
	t.Helper()
	_, body, err := Get("http://" + p.Admin + "/stats?format=json&filter=" + url.QueryEscape(regex))
	if err != nil {
		t.Fatalf("stats of %s: %v", p.Name, err)
	}
	var answer struct {
		Stats []struct {
			Name  string          `json:"name"`
			Value json.RawMessage `json:"value"`
		} `json:"stats"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		t.Fatalf("stats of %s: %v in %.200s", p.Name, err, body)
	}
	stats := map[string]int64{}
	for _, s := range answer.Stats {
		if n, err := strconv.ParseInt(string(s.Value), 10, 64); err == nil {
			stats[s.Name] = n
		}
	}
	return stats
}

// Hosts returns the health flags of a cluster's endpoints by address, as the
// admin's /clusters tells them ("healthy" when there is none).
func (p *Proxy) Hosts(t TB, cluster string) map[string]string {
	t.Helper()
	_, body, err := Get("http://" + p.Admin + "/clusters")
	if err != nil {
		t.Fatalf("clusters of %s: %v", p.Name, err)
	}
	hosts := map[string]string{}
	for line := range strings.Lines(body) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), cluster+"::")
		if !ok {
			continue
		}
		if address, flags, ok := strings.Cut(rest, "::health_flags::"); ok {
			hosts[address] = flags
		}
	}
	return hosts
}
