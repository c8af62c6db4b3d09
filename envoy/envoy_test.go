package envoy_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/envoy"
	"tollgate/internal/peer"
)

// binary is the real Envoy that the tests run on.
func binary(t *testing.T) string {
	t.Helper()
	path, err := envoy.Locate(t.Context(), os.Getenv("TOLLGATE_ENVOY"), "..")
	if err != nil {
		t.Fatalf("the tests run on the real Envoy: %v", err)
	}
	return path
}

func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "envoy")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLocateRefusesWhatItCannotUse(t *testing.T) {
	tests := []struct {
		name, explicit, want string
	}{
		{"older", script(t, "echo 'envoy  version: abc/1.39.3/Clean/RELEASE/BoringSSL'"), "version 1.39.3 is older than 1.40.0"},
		{"not envoy", script(t, "echo hello"), "does not look like Envoy's"},
		{"fails", script(t, "exit 3"), "exit status 3"},
		{"missing", filepath.Join(t.TempDir(), "none"), "no such file"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := envoy.Locate(t.Context(), test.explicit, t.TempDir())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want %q", err, test.want)
			}
		})
	}
	t.Run("newer is taken", func(t *testing.T) {
		if _, err := envoy.Locate(t.Context(), script(t, "echo 'envoy  version: abc/1.41.0/Clean/RELEASE/BoringSSL'"), t.TempDir()); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("none names the three ways", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		_, err := envoy.Locate(t.Context(), "", t.TempDir())
		for _, way := range []string{"TOLLGATE_ENVOY", "PATH", "tollgate envoy install"} {
			if err == nil || !strings.Contains(err.Error(), way) {
				t.Errorf("got %v, want it to name %s", err, way)
			}
		}
	})
}

func TestBootstrapIsTakenByEnvoy(t *testing.T) {
	for name, b := range map[string]envoy.Bootstrap{
		"two servers": {NodeID: "edge-1", Zone: "a", XDSServers: []string{"127.0.0.1:18000", "127.0.0.2:18000"}, AdminAddress: "127.0.0.1:0"},
		"by name":     {NodeID: "edge-1", XDSServers: []string{"xds-1:18000"}, AdminAddress: "127.0.0.1:0"},
		"on sockets":  {NodeID: "edge-1", XDSServers: []string{"unix:/run/xds-1.sock", "unix:/run/xds-2.sock"}, AdminAddress: "unix:" + filepath.Join(t.TempDir(), "a.sock")},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := b.JSON()
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "bootstrap.json")
			if err := os.WriteFile(file, out, 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(t.Context(), binary(t), "--mode", "validate", "--config-path", file).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		})
	}
}

func TestBootstrapNamesTheBadFlag(t *testing.T) {
	for want, b := range map[string]envoy.Bootstrap{
		"--xds-servers names no":                       {AdminAddress: "127.0.0.1:1"},
		`--xds-servers: "x" is neither`:                {AdminAddress: "127.0.0.1:1", XDSServers: []string{"x"}},
		`--envoy-admin-address: "1:99999": the port i`: {AdminAddress: "1:99999", XDSServers: []string{"a:1"}},
	} {
		if _, err := b.JSON(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// TestSupervisorRestartsAndEnds runs the real proxy against no control plane:
// it comes back after kill -9, and dies when it is told to.
func TestSupervisorRestartsAndEnds(t *testing.T) {
	dir, err := os.MkdirTemp("", "envoy-") //nolint:usetesting // a socket's path is short, and the test's own folders are not
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	admin, err := peer.Parse("unix:" + filepath.Join(dir, "admin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := envoy.NewSupervisor(t.Context(), envoy.SupervisorConfig{
		Path: binary(t), Dir: t.TempDir(), Output: io.Discard, Concurrency: 1, Log: slog.New(slog.DiscardHandler),
		Bootstrap: envoy.Bootstrap{NodeID: "t", XDSServers: []string{freeAddress(t)}}, Admin: admin,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	waitFor(t, func() bool { return answers(s) })
	if info, err := os.Stat(admin.Path); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the admin's socket: %v, %v; only its owner may use it", info.Mode(), err)
	}
	first := s.PID()
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return s.PID() != first && s.PID() != 0 && answers(s) })
	second := s.PID()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(second, 0); err == nil {
		t.Errorf("process %d outlived its supervisor", second)
	}
}

// answers says whether the proxy serves its metrics.
func answers(s *envoy.Supervisor) bool {
	w := httptest.NewRecorder()
	s.Metrics().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics/envoy", http.NoBody))
	return w.Code == http.StatusOK && strings.Contains(w.Body.String(), "envoy_server_live")
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatal("it did not happen within 10 s")
}
