package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestNoCAInAMistypedFolder: who mistypes the folder is told, and nothing is made
// there that would look like a fleet's.
func TestNoCAInAMistypedFolder(t *testing.T) {
	folder := t.TempDir()
	plane := filepath.Join(folder, "plane")
	for _, says := range []string{"made a new CA in " + plane + ": its control planes must use this --data-dir\n", ""} {
		if code, _, errs := tollgate(t, "join-token", "--role", "edge", "--name", "edge-1", "--data-dir", plane); code != exitDone || errs != says {
			t.Fatalf("exit %d, %q, want %q", code, errs, says)
		}
	}
	mistyped := filepath.Join(folder, "plan")
	for _, args := range [][]string{
		{"ca", "rotate", "--data-dir", mistyped},
		{"members", "remove", "edge/edge-1", "--data-dir", mistyped},
		{"members", "list", "--data-dir", mistyped},
		{"registry-token", "--service", "order", "--data-dir", mistyped},
	} {
		code, out, errs := tollgate(t, args...)
		if code != exitFailed || out != "" || !strings.Contains(errs, "--data-dir "+mistyped) || !strings.Contains(errs, "name the folder of the control planes") {
			t.Errorf("%q: exit %d\n%s%s", args, code, out, errs)
		}
		if _, err := os.Stat(mistyped); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q made the folder: %v", args, err)
		}
	}
	// An empty folder is no fleet's either.
	if err := os.Mkdir(mistyped, 0o700); err != nil {
		t.Fatal(err)
	}
	if code, _, _ := tollgate(t, "ca", "rotate", "--data-dir", mistyped); code != exitFailed {
		t.Errorf("exit %d", code)
	}
	if left, err := os.ReadDir(mistyped); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
	if code, _, errs := tollgate(t, "ca", "rotate", "--data-dir", plane); code != exitDone || !strings.Contains(errs, "a new root is in "+plane) {
		t.Errorf("exit %d: %s", code, errs)
	}
	if roots, err := filepath.Glob(filepath.Join(plane, "ca", "*.pem")); err != nil || len(roots) != 2 {
		t.Errorf("%v, %v", roots, err)
	}
}

// TestMembersVerbs: a removal says what it did and whom it could not find, and a
// token that is made when it has returned is one that counts.
func TestMembersVerbs(t *testing.T) {
	dir := t.TempDir()
	if code, _, errs := tollgate(t, "join-token", "--data-dir", dir, "edge/edge-1="+filepath.Join(dir, "1"), "service/edge-1="+filepath.Join(dir, "2")); code != exitDone {
		t.Fatal(errs)
	}
	for _, c := range []struct {
		args []string
		code int
		says []string
	}{
		{[]string{"members", "remove", "--data-dir", dir}, exitUsage, []string{"requires at least 1 arg"}},
		{[]string{"members", "remove", "edge-1", "--data-dir", dir}, exitFailed, []string{`edge-1: role "edge-1"`}},
		{[]string{"members", "remove", "edge/edge-2", "service/edge-1", "xds/xds-1", "--data-dir", dir}, exitFailed, []string{"service/edge-1 is out", "edge/edge-2: nobody was ever let in", "edge/edge-1, service/edge-1", `role "xds"`}},
		{[]string{"members", "remov", "edge/edge-1"}, exitUsage, []string{`did you mean "remove"?`}},
	} {
		if code, _, errs := tollgate(t, c.args...); code != c.code || slices.ContainsFunc(c.says, func(say string) bool { return !strings.Contains(errs, say) }) {
			t.Errorf("%q: exit %d\n%s", c.args, code, errs)
		}
	}
	code, out, errs := tollgate(t, "members", "list", "--data-dir", dir)
	lines := strings.Split(out, "\n")
	if code != exitDone || len(lines) != 4 || !strings.HasPrefix(lines[1], "edge/edge-1 ") || !strings.HasSuffix(lines[1], " -") || !strings.HasPrefix(lines[2], "service/edge-1  ") {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	since, err := time.Parse(time.RFC3339, strings.Fields(lines[2])[1])
	if err != nil || time.Now().Before(since) {
		t.Errorf("it returned before %s: %v", since, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "fleet", "removed", "edge.edge-1"), []byte("?"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := tollgate(t, "members", "list", "--data-dir", dir); code != exitFailed || !strings.Contains(errs, "edge.edge-1") || !strings.Contains(out, "edge/edge-1     9999") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}

// TestLongFolder: one in which a socket could not be is refused before it is
// made, by each verb that would put a socket there; not where all is told to be
// elsewhere.
func TestLongFolder(t *testing.T) {
	valid, envoy := file(t, "gateway.yaml", good), file(t, "envoy", "#!/bin/sh\necho envoy version: x/1.40.0/y\n")
	if err := os.Chmod(envoy, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, verb := range map[string][]string{
		"run":             {"run", "-f", valid, "--free-ports"},
		"run, no proxy":   {"run", "-f", valid, "--free-ports", "--no-envoy"},
		"xds":             {"xds", "-f", valid, "--free-ports"},
		"extauthz":        {"extauthz", "--xds-servers", "unix:/none", "--admin-address", "127.0.0.1:0"},
		"ratelimit":       {"ratelimit", "--admin-address", "127.0.0.1:0"},
		"envoy run":       {"envoy", "run", "--xds-servers", "unix:/none", "--admin-address", "127.0.0.1:0", "--envoy-path", envoy},
		"settings in run": {"run", "-f", valid, "--free-ports", "--envoy-admin-address", "127.0.0.1:0"},
	} {
		dir := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
		code, _, errs := tollgate(t, append(verb, "--data-dir", dir)...)
		if code != exitUsage || !strings.Contains(errs, "shorter --data-dir") {
			t.Errorf("%s: exit %d\n%s", name, code, errs)
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: it was made: %v", name, err)
		}
	}
	dir := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
	if code, _, errs := tollgate(t, "extauthz", "--data-dir", dir, "--xds-servers", "127.0.0.1:1", "--extauthz-address", "127.0.0.1:0", "--admin-address", "nowhere"); code == 0 || strings.Contains(errs, "shorter") {
		t.Errorf("told to be elsewhere: exit %d\n%s", code, errs)
	}
}

// TestOwnFolder: a folder in which others can put keys of theirs is not served
// from; root's and our own are.
func TestOwnFolder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test gives folders away: run it as root")
	}
	valid := file(t, "gateway.yaml", good)
	bare := func(mode os.FileMode, uid int) string {
		dir := filepath.Join(t.TempDir(), "state")
		if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, mode), os.Chown(dir, uid, -1)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	const stranger = 4711
	for name, c := range map[string]struct {
		dir  string
		says string
	}{
		"everybody may write":                {bare(0o777, 0), "chmod 700 it"},
		"everybody may add, as in /tmp":      {bare(os.ModeSticky|0o777, 0), "chmod 700 it"},
		"another's":                          {bare(0o700, stranger), "user 4711's"},
		"another's, and everybody may write": {bare(0o777, stranger), "chmod 700 it"},
	} {
		for _, verb := range [][]string{
			{"run", "-f", valid, "--free-ports", "--no-envoy"},
			{"xds", "-f", valid, "--free-ports"},
			{"extauthz", "--xds-servers", "unix:/none", "--admin-address", "127.0.0.1:0"},
			{"ratelimit", "--xds-servers", "unix:/none", "--admin-address", "127.0.0.1:0"},
			{"agent", "--xds-servers", "unix:/none", "--admin-address", "127.0.0.1:0"},
		} {
			code, _, errs := tollgate(t, append(verb, "--data-dir", c.dir)...)
			if code != exitFailed || !strings.Contains(errs, c.says) {
				t.Errorf("%s, %s: exit %d\n%s", name, verb[0], code, errs)
			}
		}
		if left, err := os.ReadDir(c.dir); err != nil || len(left) != 0 {
			t.Errorf("%s: %v was put there, %v", name, left, err)
		}
	}
}

// TestCertificatesEndWithinTheOverlap: one that lives longer than members need to
// hear of a new root would be believed by nobody before it ends; one that lives
// shorter than it counts could not be renewed.
func TestCertificatesEndWithinTheOverlap(t *testing.T) {
	valid := file(t, "gateway.yaml", good)
	for ttl, says := range map[string]string{"25h": "at most 24h0m0s", "1s": "at least 2s", "-1h": "at least 2s"} {
		code, _, errs := tollgate(t, "xds", "-f", valid, "--xds-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0", "--data-dir", t.TempDir(), "--certificate-ttl", ttl,
			"--extauthz-servers", "127.0.0.1:1", "--ratelimit-servers", "127.0.0.1:1")
		if code != exitUsage || !strings.Contains(errs, "--certificate-ttl "+strings.Replace(ttl, "h", "h0m0s", 1)) || !strings.Contains(errs, says) {
			t.Errorf("%s: exit %d\n%s", ttl, code, errs)
		}
	}
}
