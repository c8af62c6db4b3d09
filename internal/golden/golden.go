// Package golden compares what a test made with a file under testdata.
// Invariant: without -update nothing is ever written.
package golden

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write golden files instead of comparing with them") //nolint:gochecknoglobals // flags of test binaries are registered once

// Update reports whether the files are being written, so that a test can remove stale ones.
func Update() bool { return *update }

// Equal fails the test unless the file at path holds exactly got; with
// -update it writes the file.
func Equal(t testing.TB, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: run the test with -update to write it, then review the diff", err)
	}
	if !bytes.Equal(want, got) {
		t.Errorf("%s differs (-want +got); -update accepts it:\n%s", path, cmp.Diff(string(want), string(got)))
	}
}
