package envoy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tollgate/envoy"
	"tollgate/internal/peer"
)

// TestSuperviseElsewhere is no test by itself: it is the process that others
// start with a configuration, and kill.
func TestSuperviseElsewhere(t *testing.T) {
	text := os.Getenv("TOLLGATE_TEST_SUPERVISE")
	if text == "" {
		return
	}
	var cfg envoy.SupervisorConfig
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		t.Fatal(err)
	}
	cfg.Output, cfg.Log = os.Stderr, slog.New(slog.DiscardHandler)
	s, err := envoy.NewSupervisor(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// killedSupervisor runs a supervisor in a process of its own until its proxy
// runs, kills it and returns the proxy's id.
func killedSupervisor(t *testing.T, cfg envoy.SupervisorConfig, up func() bool) int {
	t.Helper()
	text, err := json.Marshal(map[string]any{"Path": cfg.Path, "Dir": cfg.Dir, "Bootstrap": cfg.Bootstrap, "Admin": cfg.Admin, "Concurrency": 1, "DieWithParent": cfg.DieWithParent})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestSuperviseElsewhere$")
	cmd.Env = append(os.Environ(), "TOLLGATE_TEST_SUPERVISE="+string(text))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, up)
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
	for i := 0; len(strings.Fields(string(children))) == 0 && i < 100; i++ {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", cmd.Process.Pid))
		for _, thread := range threads {
			if data, _ := os.ReadFile(thread); len(data) > 0 {
				children = data
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	fields := strings.Fields(string(children))
	if len(fields) != 1 {
		t.Fatalf("children %q, %v", children, err)
	}
	pid, err := strconv.Atoi(fields[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	return pid
}

// running supervises until the test ends.
func running(t *testing.T, s *envoy.Supervisor) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// gone says whether a process has ended; one that nobody waits for has, too.
func gone(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(data), ") Z ")
}

func quiet(t *testing.T, path, dir, admin string) envoy.SupervisorConfig {
	t.Helper()
	at, err := peer.Parse(admin)
	if err != nil {
		t.Fatal(err)
	}
	return envoy.SupervisorConfig{
		Path: path, Dir: dir, Output: io.Discard, Concurrency: 1, Log: slog.New(slog.DiscardHandler),
		Bootstrap: envoy.Bootstrap{NodeID: "t", XDSServers: []string{"127.0.0.1:1"}}, Admin: at,
	}
}

// TestProxyOutlivesAKilledParentAndIsAdopted: the next supervisor of the folder
// takes the same process over, ends it when it is told to, and starts another
// when it dies. One that was started in another way is replaced.
func TestProxyOutlivesAKilledParentAndIsAdopted(t *testing.T) {
	dir, admin := t.TempDir(), freeAddress(t)
	cfg := quiet(t, binary(t), dir, admin)
	up := func() bool {
		response, err := http.Get("http://" + admin + "/server_info")
		if err == nil {
			response.Body.Close()
		}
		return err == nil
	}
	pid := killedSupervisor(t, cfg, up)
	if gone(pid) || !envoy.HasLeft(dir) || !up() {
		t.Fatalf("the proxy %d did not outlive its parent", pid)
	}
	adopter, err := envoy.NewSupervisor(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop := running(t, adopter)
	waitFor(t, func() bool { return adopter.PID() != 0 })
	if adopter.PID() != pid {
		t.Errorf("it runs %d beside the proxy %d that was left", adopter.PID(), pid)
	}
	if _, err := envoy.NewSupervisor(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "another tollgate") {
		t.Errorf("a second supervisor of the folder: %v", err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return adopter.PID() != 0 && adopter.PID() != pid && up() })
	stop()
	if envoy.HasLeft(dir) {
		t.Error("an orderly end leaves a proxy")
	}

	pid = killedSupervisor(t, cfg, up)
	cfg.Bootstrap.NodeID = "another"
	other, err := envoy.NewSupervisor(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	running(t, other)
	waitFor(t, func() bool { return gone(pid) && other.PID() != 0 && other.PID() != pid && up() })
}

// TestProxyDiesWithItsParentIfItShall: --demo and --free-ports leave nothing.
func TestProxyDiesWithItsParentIfItShall(t *testing.T) {
	dir := t.TempDir()
	said := filepath.Join(dir, "said")
	cfg := quiet(t, script(t, "echo up > "+said+"; exec sleep 60"), dir, "127.0.0.1:1")
	cfg.DieWithParent = true
	pid := killedSupervisor(t, cfg, func() bool { _, err := os.Stat(said); return err == nil })
	waitFor(t, func() bool { return gone(pid) })
	if envoy.HasLeft(dir) {
		t.Error("it is left")
	}
}

// TestAnotherProcessIsNotAdopted: ids come again, and a file may say anything.
func TestAnotherProcessIsNotAdopted(t *testing.T) {
	for name, text := range map[string]string{
		"this test":     fmt.Sprintf(`{"pid":%d,"started":"1","admin":"127.0.0.1:1","fingerprint":""}`, os.Getpid()),
		"nobody":        `{"pid":4194303,"started":"1"}`,
		"every process": `{"pid":-1,"started":"1"}`,
		"no JSON":       "x",
		"empty":         "",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "envoy.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if envoy.HasLeft(dir) {
			t.Errorf("%s: taken for a proxy", name)
		}
	}
}

// TestBackOff: a proxy that ends at once is not started in a loop.
func TestBackOff(t *testing.T) {
	dir := t.TempDir()
	starts := filepath.Join(dir, "starts")
	s, err := envoy.NewSupervisor(t.Context(), quiet(t, script(t, "echo x >> "+starts+"; exit 1"), dir, "127.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	stop := running(t, s)
	time.Sleep(1200 * time.Millisecond)
	stop()
	data, err := os.ReadFile(starts)
	if n := strings.Count(string(data), "x"); err != nil || n < 2 || n > 4 { // after 0, 100, 300, 700 ms; the next after 1500
		t.Errorf("%d starts in 1.2 s, want 2 to 4: 100 ms, then twice as long each time (%v)", n, err)
	}
}

// proxyAdmin answers as the proxy's admin would at a moment that a real proxy
// passes too fast to be held in.
type proxyAdmin struct {
	listeners, hosts string
	connections      int64 // for the whole time, with so many requests
	requests         int64
	late             int64 // connections that come and go as the listeners close
	drains           atomic.Int64
	closes           atomic.Int64
	looks            atomic.Int64 // after that
}

func (a *proxyAdmin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/listeners":
		fmt.Fprintf(w, `{"listener_statuses":[%s]}`, a.listeners)
	case "/clusters":
		fmt.Fprintf(w, `{"cluster_statuses":[{"name":"a","host_statuses":[%s]}]}`, a.hosts)
	case "/stats":
		connections, came := a.connections, a.connections
		if a.closes.Load() > 0 {
			came += a.late
			if a.looks.Add(1) < 10 {
				connections += a.late
			}
		}
		fmt.Fprintf(w, `{"stats":[{"name":"http.admin.downstream_rq_active","value":1},{"name":"http.admin.downstream_cx_active","value":1}`)
		for name, value := range map[string]int64{"downstream_rq_active": a.requests, "downstream_cx_active": connections, "downstream_cx_total": came} {
			fmt.Fprintf(w, `,{"name":"http.http.%s","value":%d}`, name, value)
		}
		fmt.Fprint(w, "]}")
	case "/drain_listeners":
		if r.URL.RawQuery == "graceful" {
			a.drains.Add(1)
		} else {
			a.closes.Add(1)
		}
	}
}

func (a *proxyAdmin) supervisor(t *testing.T, program string) (s *envoy.Supervisor, dir string) {
	t.Helper()
	dir, address := t.TempDir(), freeAddress(t)
	s, err := envoy.NewSupervisor(t.Context(), quiet(t, script(t, strings.ReplaceAll(program, "DIR", dir)), dir, address))
	if err != nil {
		t.Fatal(err)
	}
	// After the supervisor has seen that the address is free.
	server := httptest.NewUnstartedServer(a)
	server.Listener.Close()
	if server.Listener, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	server.Start()
	t.Cleanup(server.Close)
	return s, dir
}

// TestReadyMeansListenersAndHosts: live is not ready.
func TestReadyMeansListenersAndHosts(t *testing.T) {
	const well = `{"health_status":{"eds_health_status":"HEALTHY"}}`
	for _, c := range []struct {
		name          string
		admin         *proxyAdmin
		ready, serves bool
	}{
		{"nothing yet", &proxyAdmin{}, false, false},
		{"one of two listeners", &proxyAdmin{listeners: "{}", hosts: well}, false, false},
		{"all", &proxyAdmin{listeners: "{},{}", hosts: well + "," + well}, true, true},
		{"a host that is not checked yet", &proxyAdmin{listeners: "{},{}", hosts: well + `,{"health_status":{"eds_health_status":"HEALTHY","pending_active_hc":true}}`}, true, false},
		{"a host that failed its check", &proxyAdmin{listeners: "{},{}", hosts: well + `,{"health_status":{"eds_health_status":"HEALTHY","failed_active_health_check":true}}`}, true, false},
		{"a host that drains", &proxyAdmin{listeners: "{},{}", hosts: well + `,{"health_status":{"eds_health_status":"DRAINING"}}`}, true, false},
	} {
		s, _ := c.admin.supervisor(t, "exit 0")
		if err := s.Ready(t.Context(), 2); (err == nil) != c.ready {
			t.Errorf("%s: ready: %v", c.name, err)
		}
		if err := s.Serves(t.Context(), map[string]int{"a": 2}); (err == nil) != c.serves {
			t.Errorf("%s: serves: %v", c.name, err)
		}
	}
}

// TestStopDrainsWaitsAndStartsNothing: the proxy is told to drain, lives until
// its clients have left and their requests are answered, and stays ended.
func TestStopDrainsWaitsAndStartsNothing(t *testing.T) {
	for _, c := range []struct {
		name        string
		admin       *proxyAdmin
		closes      int64
		from, until time.Duration
	}{
		{"nobody", &proxyAdmin{}, 1, 250 * time.Millisecond, 1500 * time.Millisecond},
		{"a client that comes at the last moment", &proxyAdmin{late: 1}, 1, 700 * time.Millisecond, 2500 * time.Millisecond},
		{"a silent client", &proxyAdmin{connections: 1}, 0, 2600 * time.Millisecond, 3800 * time.Millisecond},
		{"a request that takes longer than may be", &proxyAdmin{connections: 1, requests: 1}, 0, 4 * time.Second, 6 * time.Second},
		{"a request that nobody waits for any more", &proxyAdmin{requests: 1}, 0, 4 * time.Second, 6 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := c.admin
			s, dir := a.supervisor(t, "echo x >> DIR/starts; exec sleep 60")
			running(t, s)
			waitFor(t, func() bool { _, err := os.Stat(filepath.Join(dir, "starts")); return err == nil && s.PID() != 0 })
			pid, start := s.PID(), time.Now()
			go s.Stop(context.Background())
			for !gone(pid) && time.Since(start) < 10*time.Second {
				time.Sleep(10 * time.Millisecond)
			}
			if took := time.Since(start); took < c.from || took > c.until || a.drains.Load() != 1 || a.closes.Load() != c.closes {
				t.Errorf("ended after %v with %d drains, want %v to %v after one; listeners closed %d times, want %d", took, a.drains.Load(), c.from, c.until, a.closes.Load(), c.closes)
			}
			time.Sleep(400 * time.Millisecond)
			if data, err := os.ReadFile(filepath.Join(dir, "starts")); err != nil || strings.Count(string(data), "x") != 1 {
				t.Errorf("started again after Stop: %q %v", data, err)
			}
		})
	}
}
