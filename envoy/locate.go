// Package envoy knows the proxy as a program: where its binary is, how to get
// it, how to start it with a bootstrap that knows only the control plane, how to
// keep it running and how to stop it without cutting a request. Invariant: no
// route and no policy is written here; those come over xDS.
package envoy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// MinVersion is the oldest Envoy that is accepted, because 1.40.0 mends
// ext_authz with CONNECT and the path normalisation of "..;" (its changelog).
const MinVersion = "1.40.0"

// ErrNotFound is returned when no Envoy is configured, on PATH or installed.
var ErrNotFound = errors.New("no envoy binary found: set TOLLGATE_ENVOY or --envoy-path, or put `envoy` on PATH, or run `tollgate envoy install`")

// Locate returns the path of the Envoy to use: the explicit one, else `envoy`
// on PATH, else .tools/envoy under dir. An explicit one that cannot be used is
// an error, never a reason to look further.
func Locate(ctx context.Context, explicit, dir string) (string, error) {
	if explicit != "" {
		if err := check(ctx, explicit); err != nil {
			return "", fmt.Errorf("envoy at %s (TOLLGATE_ENVOY or --envoy-path): %w", explicit, err)
		}
		return explicit, nil
	}
	if path, err := exec.LookPath("envoy"); err == nil {
		if err := check(ctx, path); err != nil {
			return "", fmt.Errorf("envoy on PATH at %s: %w; set --envoy-path to use another", path, err)
		}
		return path, nil
	}
	path := Installed(dir)
	if _, err := os.Stat(path); err != nil {
		return "", ErrNotFound
	}
	if err := check(ctx, path); err != nil {
		return "", fmt.Errorf("envoy at %s: %w; `tollgate envoy install` replaces it", path, err)
	}
	return path, nil
}

// Installed is where `tollgate envoy install` puts the binary.
func Installed(dir string) string { return filepath.Join(dir, ".tools", "envoy") }

// Version asks a binary for its version, such as "1.40.0".
func Version(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("`%s --version`: %w", path, err)
	}
	m := regexp.MustCompile(`/(\d+\.\d+\.\d+)(-\w+)?/`).FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("`%s --version` does not look like Envoy's: %.80q", path, out)
	}
	return string(m[1]), nil
}

func check(ctx context.Context, path string) error {
	version, err := Version(ctx, path)
	if err != nil {
		return err
	}
	if older(version, MinVersion) {
		return fmt.Errorf("version %s is older than %s, whose fixes the gate relies on (ext_authz with CONNECT, paths with `..;`)", version, MinVersion)
	}
	return nil
}

func older(a, b string) bool {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(as), len(bs)) {
		x, _ := strconv.Atoi(as[i])
		y, _ := strconv.Atoi(bs[i])
		if x != y {
			return x < y
		}
	}
	return false
}
