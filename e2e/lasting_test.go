package e2e_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
)

// lastingGateway has one public route under a prefix.
const lastingGateway = "version: 1\nlisteners: [{name: http, address: ADDRESS}]\nupstreams: [{name: a, endpoints: [UPSTREAM]}]\n" +
	"routes: [{name: main, match: {path: {prefix: PREFIX}}, auth: public, upstream: a}]\n"

// lasting is a `tollgate run` whose Envoy outlives it.
type lasting struct {
	dir, file, address, upstream string
	args                         []string
}

func newLasting(t *testing.T) *lasting {
	t.Helper()
	l := &lasting{dir: harness.TempDir(t), address: harness.FreeAddress(t), upstream: harness.NewUpstreams(t, "a")[0].Address}
	l.file = filepath.Join(l.dir, "gateway.yaml")
	l.save(t, "/")
	l.args = []string{"run", "--json", "-f", l.file, "--data-dir", l.dir, "--envoy-path", harness.EnvoyPath(t), "--envoy-concurrency", "1", "--admin-address", harness.FreeAddress(t)}
	return l
}

// save writes the gateway file with its route under a prefix.
func (l *lasting) save(t *testing.T, prefix string) {
	t.Helper()
	text := strings.NewReplacer("ADDRESS", l.address, "UPSTREAM", l.upstream, "PREFIX", prefix).Replace(lastingGateway)
	if err := os.WriteFile(l.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (l *lasting) start(t *testing.T) *harness.Process {
	t.Helper()
	// A pipe to this test would end with the process that is killed.
	shell := append([]string{"-c", `log=$1; shift; exec "$@" 2>>"$log"`, "sh", filepath.Join(l.dir, "stderr"), harness.Tollgate(t)}, l.args...)
	return harness.Start(t, harness.Command{Name: "run", Path: "/bin/sh", Args: shell, Dir: l.dir})
}

// envoy is the proxy's process id, which this test ends if nobody else does.
func (l *lasting) envoy(t *testing.T, run *harness.Process) int {
	t.Helper()
	pid := run.Ready.PIDs["envoy"]
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	return pid
}

func (l *lasting) status(t *testing.T) (string, int) {
	t.Helper()
	out, errs, code := harness.Run(t, "status", "--admin-address", l.args[len(l.args)-1], "--data-dir", l.dir)
	return out + errs, code
}

// TestReadyMeansThatTheAdoptedEnvoyFollows: a start beside an Envoy that was
// left is ready once that Envoy runs what the file says now, and not before;
// meanwhile status says that it is not connected.
func TestReadyMeansThatTheAdoptedEnvoyFollows(t *testing.T) {
	t.Parallel()
	l := newLasting(t)
	first := l.start(t).AwaitReady(t, 30*time.Second)
	envoy := l.envoy(t, first)
	for _, prefix := range []string{"/second", "/third"} {
		first.Kill()
		l.save(t, prefix)
		time.Sleep(3 * time.Second) // so that the proxy tries to connect ever more seldom
		if prefix == "/third" {     // one that answers late
			if err := syscall.Kill(envoy, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}
		first = l.start(t)
		if prefix == "/third" {
			harness.Eventually(t, 5*time.Second, "status tells that the proxy is away", func() error {
				if out, code := l.status(t); code != 1 || !strings.Contains(out, `its own proxy, "edge", is not connected`) {
					return fmt.Errorf("exit %d\n%s", code, out)
				}
				return nil
			})
			if err := syscall.Kill(envoy, syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
		}
		first.AwaitReady(t, 30*time.Second)
		if status, _, err := harness.Get("http://" + l.address + prefix); err != nil || status != 200 {
			t.Errorf("%s is said to be ready and answers %d, %v", prefix, status, err)
		}
		if out, code := l.status(t); code != 0 {
			t.Errorf("ready, and status exits %d\n%s", code, out)
		}
		if got := first.Ready.PIDs["envoy"]; got != envoy {
			t.Fatalf("envoy %d was left and %d runs", envoy, got)
		}
	}
}

// TestKilledRunLeavesEnvoyServing: kill -9 of `tollgate run` and its next start
// fail no request of a public route, and it is the same Envoy all along; a start
// that would not take it over says which it is, and what to do.
func TestKilledRunLeavesEnvoyServing(t *testing.T) {
	l := newLasting(t)
	first := l.start(t).AwaitReady(t, 30*time.Second)
	envoy := l.envoy(t, first)
	load := traffic.Start(traffic.Load{Request: traffic.Request{URL: "http://" + l.address + "/x"}, Rate: 200, Duration: time.Minute})
	time.Sleep(500 * time.Millisecond)
	first.Kill()
	time.Sleep(500 * time.Millisecond)
	if _, errs, code := harness.Run(t, "run", "-f", l.file, "--data-dir", l.dir, "--envoy-path", harness.EnvoyPath(t), "--free-ports"); code != 1 || !containsAll(errs, fmt.Sprintf("kill %d", envoy), "without --demo and --free-ports", l.dir) || strings.Contains(errs, "not ready") {
		t.Errorf("--free-ports beside an envoy that was left: exit %d\n%s", code, errs)
	}
	second := l.start(t).AwaitReady(t, 30*time.Second)
	if got := second.Ready.PIDs["envoy"]; got != envoy {
		t.Errorf("envoy %d was left and %d runs", envoy, got)
	}
	time.Sleep(500 * time.Millisecond)
	clean(t, "kill -9 and the next start", load.Stop(), okOnly)
	l.save(t, "/new")
	harness.Eventually(t, 10*time.Second, "the adopted proxy follows the file", func() error {
		if status, _, err := harness.Get("http://" + l.address + "/x"); err != nil || status != 404 {
			return fmt.Errorf("%d: %w", status, err)
		}
		return nil
	})
	if code, _ := second.Terminate(t, 10*time.Second); code != 0 {
		t.Errorf("exit %d", code)
	}
	harness.Eventually(t, 5*time.Second, "envoy is gone", func() error {
		if syscall.Kill(envoy, 0) == nil {
			if stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", envoy)); !strings.Contains(string(stat), ") Z ") {
				return fmt.Errorf("%d lives", envoy)
			}
		}
		return nil
	})
}

// TestResend: a listener whose port was taken is refused, shows, and is sent
// again by `tollgate resend` once its cause is mended; a node that nobody knows
// is an error.
func TestResend(t *testing.T) {
	l := newLasting(t)
	run := l.start(t).AwaitReady(t, 30*time.Second)
	l.envoy(t, run)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	text, err := os.ReadFile(l.file)
	if err != nil {
		t.Fatal(err)
	}
	second := strings.Replace(string(text), "}]\n", "}, {name: second, address: "+taken.Addr().String()+"}]\n", 1)
	if err := os.WriteFile(l.file, []byte(second), 0o600); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, 10*time.Second, "the listener is refused", func() error {
		if out, code := l.status(t); code != 1 || !containsAll(out, "REFUSED", `listener "second"`, "gateway.yaml:") {
			return fmt.Errorf("exit %d\n%s", code, out)
		}
		return nil
	})
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	resend := func(node string) (string, int) {
		out, errs, code := harness.Run(t, "resend", node, "--admin-address", l.args[len(l.args)-1], "--data-dir", l.dir)
		return out + errs, code
	}
	if out, code := resend("edge-2"); code != 1 || !strings.Contains(out, "no such node") {
		t.Errorf("another node: exit %d\n%s", code, out)
	}
	if out, code := l.status(t); code != 1 {
		t.Errorf("it was sent again unasked: exit %d\n%s", code, out)
	}
	if out, code := resend("edge"); code != 0 {
		t.Fatalf("exit %d\n%s", code, out)
	}
	harness.Eventually(t, 10*time.Second, "the listener serves", func() error {
		if out, code := l.status(t); code != 0 {
			return fmt.Errorf("exit %d\n%s", code, out)
		}
		if status, _, err := harness.Get("http://" + taken.Addr().String() + "/x"); err != nil || status != 200 {
			return fmt.Errorf("%d: %w", status, err)
		}
		return nil
	})
}
