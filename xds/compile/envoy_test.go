package compile_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tollgate/xds/compile"
)

// TestEnvoyTakesEveryGolden: what Envoy refuses must not be found out in
// production.
func TestEnvoyTakesEveryGolden(t *testing.T) {
	p := newPEMs(t)
	for _, path := range cases(t) {
		t.Run(filepath.Base(filepath.Dir(path)), func(t *testing.T) {
			objects, _ := compile.Compile(parseFile(t, p, path), scope())
			out, err := exec.CommandContext(t.Context(), binary(t), "--mode", "validate", "-c", write(t, static(t, objects)), "--log-level", "warning").CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if strings.Contains(string(out), "[warning]") {
				t.Errorf("Envoy warns:\n%s", out)
			}
		})
	}
}
