package envoy_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tollgate/envoy"
	"tollgate/internal/peer"
)

// sink is an output that can be read while it is written.
type sink struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// supervise runs a program in the proxy's place until ok, and returns what it
// said by way of the supervisor.
func supervise(t *testing.T, cfg envoy.SupervisorConfig, ok func() bool) {
	t.Helper()
	cfg.DieWithParent = true
	cfg.Bootstrap = envoy.Bootstrap{NodeID: "t", XDSServers: []string{"127.0.0.1:1"}}
	var err error
	if cfg.Admin, err = peer.Parse(freeAddress(t)); err != nil {
		t.Fatal(err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s, err := envoy.NewSupervisor(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	waitFor(t, ok)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// What the proxy writes comes out line by line: denials beyond a rate are
// counted, lines that lost a part are dropped, its last words are kept.
func TestLogOfTheProxy(t *testing.T) {
	denial := func(client string, status int) string {
		return fmt.Sprintf(`{"client":"%s","path":"/","status":%d,"user_agent":"x"}`, client, status)
	}
	var say strings.Builder
	for range 30 {
		fmt.Fprintln(&say, denial("10.0.0.1", 404))
		fmt.Fprintln(&say, denial("2001:db8::1", 0))
		fmt.Fprintln(&say, denial("2001:db8::2", 401))
		fmt.Fprintln(&say, denial("10.0.0.2", 200))
		fmt.Fprintln(&say, denial("10.0.0.2", 503))
	}
	// A client that writes what looks like a field is none the quieter.
	fmt.Fprintln(&say, `{"client":"10.0.0.1","path":"/\"status\":200,\"client\":\"10.0.0.9\"","status":404}`)
	fmt.Fprintln(&say, `{"client":"10.0.0.3","pa{"client":"10.0.0.3","path":"/torn","status":200}`)
	fmt.Fprintln(&say, `"path":"/torn-tail","status":200}`)
	fmt.Fprintln(&say, `{"client":"10.0.0.3","path":"/`+strings.Repeat("long", 50_000)+`"}`)
	fmt.Fprintln(&say, `terminate called after throwing an instance`)
	fmt.Fprintln(&say, `{"time":"t","level":"error","component":"envoy","msg":"own words"}`)
	text := filepath.Join(t.TempDir(), "said")
	if err := os.WriteFile(text, []byte(say.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	var out sink
	metrics := prometheus.NewRegistry()
	supervise(t, envoy.SupervisorConfig{
		Path: script(t, "cat "+text+" >&2; exec sleep 60"), Dir: t.TempDir(), Output: &out, Metrics: metrics,
	}, func() bool { return strings.Contains(out.String(), "own words") })
	for line, want := range map[string]int{
		`"client":"10.0.0.1"`: 10, `"client":"2001:db8::`: 10, `"status":200,"user_agent"`: 30, `"status":503`: 30,
		`/torn`: 0, `longlong`: 0, "terminate called": 1, "own words": 1,
	} {
		// A second may end in between.
		if got := strings.Count(out.String(), line); got != want && (want != 10 || got != 20) {
			t.Errorf("%d lines with %s came out, want %d", got, line, want)
		}
	}
	if torn, err := testutil.GatherAndCount(metrics, "tollgate_access_log_torn_total"); torn != 1 || err != nil {
		t.Errorf("no count of torn lines: %v", err)
	}
}

// The next supervisor of the same folder takes the FIFO that is there; a file
// in its place is told of.
func TestLogHasAName(t *testing.T) {
	dir := t.TempDir()
	for i := range 2 {
		var out sink
		supervise(t, envoy.SupervisorConfig{Path: script(t, "echo said >&2; exec sleep 60"), Dir: dir, Output: &out}, func() bool {
			return strings.Contains(out.String(), "said")
		})
		if info, err := os.Stat(filepath.Join(dir, "envoy-log.fifo")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("run %d: %v, %v", i, info, err)
		}
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "envoy-log.fifo"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	admin, err := peer.Parse(freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	s, err := envoy.NewSupervisor(t.Context(), envoy.SupervisorConfig{
		Path: "/none", Dir: other, Log: slog.New(slog.DiscardHandler), Admin: admin, DieWithParent: true,
		Bootstrap: envoy.Bootstrap{NodeID: "t", XDSServers: []string{"127.0.0.1:1"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "is no FIFO") {
		t.Errorf("a file in the FIFO's place: %v", err)
	}
}
