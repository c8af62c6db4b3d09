package harness

import (
	"os/exec"
	"path/filepath"
	"time"
)

// Languages are those in which an upstream says how it reads a request; Go's is
// the test's own.
func Languages() []string { return []string{"node", "python", "java"} }

// NewReader starts an upstream of e2e/upstreams in a language and returns its
// address. It answers with its view of the request as JSON.
func NewReader(t TB, language string) string {
	t.Helper()
	program := map[string][]string{"node": {"node", "echo.js"}, "python": {"python3", "echo.py"}, "java": {"java", "Echo.java"}}[language]
	path, err := exec.LookPath(program[0])
	if err != nil {
		t.Fatalf("%s is missing: `make tools` installs nodejs, python3 and a JDK where it may, else install Debian's nodejs, python3, default-jdk-headless", program[0])
	}
	args := []string{filepath.Join(Root(t), "e2e", "upstreams", program[1])}
	if language == "java" {
		// Compiled once and run once: the optimising compiler would cost more than it gives.
		args = append([]string{"-XX:TieredStopAtLevel=1", "-Xmx64m"}, args...)
	}
	return Start(t, Command{Name: language, Path: path, Args: args}).AwaitReady(t, 60*time.Second).Ready.Address
}
