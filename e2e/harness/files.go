package harness

import (
	"os"
	"path/filepath"
)

// SaveFile replaces another file of the gateway's folder, by rename.
func (s *Stack) SaveFile(t TB, name, text string) {
	t.Helper()
	s.write(t, name, text)
}

// RemoveFile takes a file of the gateway's folder away.
func (s *Stack) RemoveFile(t TB, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(s.Dir, name)); err != nil {
		t.Fatalf("remove %s: %v", name, err)
	}
}
