// Package harness starts the real thing for black-box tests and benchmarks: our
// binary in its roles, Envoy, Redis, upstreams that remember what they saw, and
// clients that behave well or badly. Invariant: whatever it starts is ended by
// its own pid when the test ends, and no address is fixed.
package harness

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// TB is what the harness needs of a test; *testing.T is one.
type TB interface {
	Helper()
	Cleanup(func())
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Tollgate returns the binary under test: TOLLGATE_BIN, which Build sets.
func Tollgate(t TB) string {
	t.Helper()
	path := os.Getenv("TOLLGATE_BIN")
	if path == "" {
		t.Fatalf("TOLLGATE_BIN is not set: call harness.Build first (TestMain does)")
	}
	return path
}

// Build builds the binary into dir and sets TOLLGATE_BIN, unless it is set.
func Build(ctx context.Context, dir string) error {
	if os.Getenv("TOLLGATE_BIN") != "" {
		return nil
	}
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "tollgate")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "./cmd/tollgate")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build ./cmd/tollgate: %w\n%s", err, out)
	}
	return os.Setenv("TOLLGATE_BIN", path)
}

// EnvoyPath returns the Envoy to test against: TOLLGATE_ENVOY, else
// .tools/envoy of the module.
func EnvoyPath(t TB) string {
	t.Helper()
	if path := os.Getenv("TOLLGATE_ENVOY"); path != "" {
		return path
	}
	root, err := moduleRoot()
	if err != nil {
		t.Fatalf("find Envoy: %v", err)
	}
	path := filepath.Join(root, ".tools", "envoy")
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no Envoy to test against: set TOLLGATE_ENVOY or run `tollgate envoy install` in %s", root)
	}
	return path
}

// Root returns the module's directory.
func Root(t TB) string {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatalf("%v", err)
	}
	return root
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if data, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil && len(data) > 15 && string(data[:15]) == "module tollgate" {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod of module tollgate above the working directory")
		}
		dir = parent
	}
}

// TempDir returns a folder that lives as long as the test.
func TempDir(t TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tollgate-e2e-")
	if err != nil {
		t.Fatalf("temporary folder: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// FreeAddress returns a loopback address that nothing else of the machine's
// tests takes while this test runs: its UDP twin is held as the reservation. It
// lies below the kernel's ephemeral range, so no outgoing connection lands on it.
func FreeAddress(t TB) string {
	t.Helper()
	var binder net.ListenConfig
	ctx := context.Background()
	for range 1000 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(15000+rand.IntN(17000)))
		reservation, err := binder.ListenPacket(ctx, "udp", address)
		if err != nil {
			continue
		}
		probe, err := binder.Listen(ctx, "tcp", address)
		if err != nil {
			_ = reservation.Close()
			continue
		}
		_ = probe.Close()
		t.Cleanup(func() { _ = reservation.Close() })
		return address
	}
	t.Fatalf("no free port between 15000 and 32000")
	return ""
}

// Eventually polls until the condition returns nil, and fails the test with its
// last error when it does not in time. It returns how long it took.
func Eventually(t TB, within time.Duration, what string, condition func() error) time.Duration {
	t.Helper()
	start := time.Now()
	for {
		err := condition()
		if err == nil {
			return time.Since(start)
		}
		if time.Since(start) > within {
			t.Fatalf("%s: not within %v: %v", what, within, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
