package e2e_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/harness"
)

// TestServicesPage runs docs/services.md as it is printed, but for its ports.
func TestServicesPage(t *testing.T) {
	page, err := os.ReadFile("../docs/services.md")
	if err != nil {
		t.Fatal(err)
	}
	script := "set -eu\n"
	blocks := regexp.MustCompile("(?s)\n```sh\n(.*?)```\n").FindAllStringSubmatch(string(page), -1)
	for _, block := range blocks {
		script += block[1]
	}
	if len(blocks) != 3 {
		t.Fatalf("the page has %d blocks of commands", len(blocks))
	}
	admin := harness.FreeAddress(t)
	for written, free := range map[string]string{"18080": harness.FreeAddress(t), "18081": harness.FreeAddress(t), "9900": admin} {
		script = strings.ReplaceAll(script, written, free[strings.LastIndexByte(free, ':')+1:])
	}
	path := filepath.Dir(harness.Tollgate(t)) + ":" + filepath.Dir(harness.EnvoyPath(t)) + ":" + os.Getenv("PATH")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir, cmd.Env = harness.TempDir(t), append(os.Environ(), "PATH="+path, "TOLLGATE_ADMIN_ADDRESS="+admin, "TOLLGATE_ENVOY="+harness.EnvoyPath(t))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd.Stdout, cmd.Stderr = said, said
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err = cmd.Run()
	// What it started in the background is of its group.
	group := cmd.Process.Pid
	_ = syscall.Kill(-group, syscall.SIGTERM)
	harness.Eventually(t, 15*time.Second, "all that it started is gone", func() error {
		if gone := syscall.Kill(-group, 0); gone == nil {
			return context.DeadlineExceeded
		}
		return nil
	})
	out, _ := os.ReadFile(said.Name())
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, header := range []string{"\nx-auth-token: ", "\nx-auth-user: ann\n", "\nx-auth-tenant: acme\n", "\nx-auth-kind: api_key\n", "\nx-request-id: "} {
		if !strings.Contains(string(out), header) {
			t.Errorf("want %q in\n%s", header, out)
		}
	}
	if strings.Contains(string(out), "\nx-api-key: ") {
		t.Error("the service sees the key")
	}
}
