package compile_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestEnvoyTakesEveryGolden: what Envoy refuses must not be found out in
// production. The shipped files count as goldens: who copies one must not start
// with a refusal.
func TestEnvoyTakesEveryGolden(t *testing.T) {
	p := newPEMs(t)
	for _, path := range append(cases(t), shipped(t)...) {
		t.Run(path, func(t *testing.T) {
			objects, _ := everything(parseFile(t, p, path), scope(), instances())
			out, err := exec.CommandContext(t.Context(), binary(t), "--mode", "validate", "-c", write(t, bootstrap(t, objects)), "--log-level", "warning").CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if strings.Contains(string(out), "[warning]") {
				t.Errorf("Envoy warns:\n%s", out)
			}
		})
	}
}

// shipped are the gateway files of configs/.
func shipped(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, pattern := range []string{"gateway.yaml", "compose/gateway.yaml", "examples/*.yaml"} {
		found, err := filepath.Glob(filepath.Join("../../configs", pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("configs/%s: found none (%v)", pattern, err)
		}
		files = append(files, found...)
	}
	return files
}
