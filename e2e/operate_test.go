package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
)

// TestHangupReloadsAndEndsNothing: `systemctl reload`, logrotate and a closed
// ssh send SIGHUP. It once ended the whole gateway at once.
func TestHangupReloadsAndEndsNothing(t *testing.T) {
	dir := filepath.Dir(copyDemo(t))
	log := filepath.Join(dir, "access.log")
	file := filepath.Join(dir, "gateway.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(text, "\naccess_log: {path: "+log+"}\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	p, _ := startRun(t, file, "--demo")
	base := p.Ready.Listeners["http"]
	load := traffic.Start(traffic.Load{Request: traffic.Request{URL: base + "/healthz"}, Rate: 100, Duration: time.Minute})
	time.Sleep(500 * time.Millisecond)
	if err := os.Rename(log, log+".1"); err != nil {
		t.Fatal(err)
	}
	pids := append([]int{p.PID(), p.Ready.PIDs["envoy"]}, p.Ready.Instances[0].PID)
	for _, pid := range pids {
		if pid == p.Ready.PIDs["envoy"] {
			continue // its supervisor tells it
		}
		for range 3 {
			if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
		}
	}
	harness.Eventually(t, 10*time.Second, "the rotated log is let go", func() error {
		_, err := os.Stat(log)
		return err
	})
	clean(t, "during SIGHUP", load.Stop(), okOnly)
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); err != nil {
			t.Errorf("process %d is gone: %v", pid, err)
		}
	}
	if !strings.Contains(p.Log(), "reloading as told by SIGHUP") {
		t.Error("nobody says that it reloaded")
	}
	if code, _ := p.Terminate(t, 10*time.Second); code != 0 {
		t.Errorf("exit %d", code)
	}
}

const twoFiles = head + `
upstreams:
  - {name: a, endpoints: ["${a}"]}
routes:
  - {name: main, match: {path: {prefix: /main}}, auth: public, upstream: a}
`

// TestBadFileAtStartAndAlone: a control plane that starts beside a bad file
// serves the last good set; of several files the bad one is held back alone.
func TestBadFileAtStartAndAlone(t *testing.T) {
	whole := t
	up := harness.NewUpstreams(t, "a")[0]
	s := harness.NewStack(t, harness.Options{Gateway: twoFiles, Vars: map[string]string{"a": up.Address}})
	status := func() (string, int) {
		out, errs, code := harness.Run(t, "status", "--admin-address", s.Address(t, "admin"), "--data-dir", s.DataDir())
		return out + errs, code
	}
	first, code := status()
	if code != 0 || !containsAll(first, "REVISION ", "gateway.yaml\n", "NODE") {
		t.Fatalf("exit %d\n%s", code, first)
	}
	awaitStatus(t, s, "/main", nil, okOnly, 5*time.Second)
	t.Run("start", func(t *testing.T) {
		good, err := os.ReadFile(s.File)
		if err != nil {
			t.Fatal(err)
		}
		s.Save(t, strings.Replace(twoFiles, "upstream: a}", "upstream: b}", 1))
		load := traffic.Start(traffic.Load{Request: traffic.Request{URL: s.URL("/main")}, Rate: 100, Duration: time.Minute})
		s.XDS.Kill()
		s.RestartControlPlane(whole)
		if r := ready(t, s); !r.tells("gateway.yaml:") {
			t.Errorf("%+v", r)
		}
		harness.Eventually(t, 5*time.Second, "status tells", func() error {
			if out, code := status(); code != 1 || !containsAll(out, "HELD BACK ", `no upstream is named "b"`, "REVISION "+first[len("REVISION "):len("REVISION ")+16]) {
				return fmt.Errorf("exit %d\n%s", code, out)
			}
			return nil
		})
		clean(t, "beside a bad file", load.Stop(), okOnly)
		if _, errs, code := harness.Run(t, "xds", "-f", s.File, "--data-dir", s.DataDir(), "--xds-address", "unix:"+filepath.Join(s.Dir, "strict.sock"), "--free-ports", "--strict-start"); code != 1 || !strings.Contains(errs, "gateway.yaml:") {
			t.Errorf("--strict-start: exit %d\n%s", code, errs)
		}
		if err := os.WriteFile(s.File, good, 0o600); err != nil {
			t.Fatal(err)
		}
		harness.Eventually(t, 5*time.Second, "mended", func() error {
			if out, code := status(); code != 0 {
				return fmt.Errorf("exit %d\n%s", code, out)
			}
			return nil
		})
	})
}

// TestStatusOfSeveralControlPlanes: other files are another revision, and one
// that does not answer is told, with what the others say.
func TestStatusOfSeveralControlPlanes(t *testing.T) {
	// Control planes that one operator asks share the token of the admin API.
	dataDir := ""
	start := func(text string) *harness.Process {
		file := writeGateway(t, text)
		dataDir = filepath.Join(filepath.Dir(file), ".tollgate")
		if err := os.Mkdir(dataDir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dataDir, "admin.token"), []byte(strings.Repeat("7", 64)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return harness.Start(t, harness.Command{Name: "xds", Path: harness.Tollgate(t), Args: []string{"xds", "--json", "--free-ports", "-f", file}}).AwaitReady(t, 20*time.Second)
	}
	const text = "version: 1\nlisteners: [{name: http, address: 127.0.0.1:0}]\n"
	one, same, other := start(text), start(text), start(text+"# another\n")
	for _, c := range []struct {
		name  string
		asked []string
		code  int
		says  []string
	}{
		{"equal files", []string{one.Ready.Admin, same.Ready.Admin}, 0, []string{"CONTROL PLANE " + one.Ready.Admin, "CONTROL PLANE " + same.Ready.Admin}},
		{"other files", []string{one.Ready.Admin, other.Ready.Admin}, 1, []string{"APART " + other.Ready.Admin, "different revisions"}},
		{"one gone", []string{one.Ready.Admin, "127.0.0.1:1"}, 1, []string{"REVISION ", "UNREACHABLE ", "127.0.0.1:1: nobody answers"}},
	} {
		out, errs, code := harness.Run(t, "status", "--admin-address", strings.Join(c.asked, ","), "--data-dir", dataDir)
		if code != c.code || !containsAll(out+errs, c.says...) {
			t.Errorf("%s: exit %d\n%s%s", c.name, code, out, errs)
		}
	}
}

// TestFullDiskRestart: what is killed on a machine whose disk is full starts
// again, as long as it has nothing new to write.
func TestFullDiskRestart(t *testing.T) {
	up := harness.NewUpstreams(t, "up")[0]
	s := harness.NewStack(t, harness.Options{
		Gateway: strings.ReplaceAll(shrinkGateway, "discovery: {registry: up}", `endpoints: ["${up}"]`), NoEnvoy: true, Vars: map[string]string{"up": up.Address},
	})
	dir := harness.TempDir(t)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m,mode=0700"); err != nil {
		t.Fatalf("a small disk: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	admin := harness.FreeAddress(t)
	start := func() *harness.Process {
		t.Helper()
		return harness.Start(t, harness.Command{Name: "run", Path: harness.Tollgate(t), Args: []string{
			"run", "--json", "-f", s.File, "--data-dir", dir, "--admin-address", admin, "--envoy-path", harness.EnvoyPath(t), "--envoy-concurrency", "1",
		}}).AwaitReady(t, 30*time.Second)
	}
	run := start()
	t.Cleanup(func() { _ = syscall.Kill(run.Ready.PIDs["envoy"], syscall.SIGKILL) })
	fill, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{64 << 10, 1 << 10, 1} {
		for err = nil; err == nil; {
			_, err = fill.Write(make([]byte, size))
		}
	}
	_ = fill.Close()
	run.Kill()
	again := start()
	if again.Ready.PIDs["envoy"] != run.Ready.PIDs["envoy"] {
		t.Errorf("envoy %d was replaced by %d", run.Ready.PIDs["envoy"], again.Ready.PIDs["envoy"])
	}
	if status, _, err := harness.Get(s.URL("/up")); err != nil || status != http.StatusOK {
		t.Errorf("/up answers %d %v", status, err)
	}
}
