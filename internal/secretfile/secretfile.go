// Package secretfile keeps a secret that is made once, by whoever comes first,
// and read by all. Invariants: of several processes that start at once all get
// the same bytes; nobody ever reads half a file; only its owner can read it.
package secretfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// LoadOrCreate reads the file at path, or makes it (0600, its folder 0700) with
// what create returns. Who comes second gets the first's bytes, not its own.
func LoadOrCreate(path string, create func() ([]byte, error)) ([]byte, error) {
	data, err := os.ReadFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return data, err
	}
	made, err := create()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := publish(path, made); err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return os.ReadFile(path)
}

// publish links a complete file into place; a rename would replace the first's.
func publish(path string, data []byte) error {
	temporary, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o600), renameio.IgnoreUmask())
	if err != nil {
		return err
	}
	defer func() { _ = temporary.Cleanup() }()
	if _, err := temporary.Write(data); err != nil {
		return err
	}
	if err := temporary.Sync(); err != nil {
		return err
	}
	if err := os.Link(temporary.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
