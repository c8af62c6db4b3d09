// Package secretfile keeps a secret that is made once, by whoever comes first,
// and read by all. Invariants: of several processes that start at once all get
// the same bytes; nobody ever reads half a file; only its owner can read it.
package secretfile

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

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

// minToken is the shortest token that is taken, in characters.
const minToken = 32

// Token reads the token in a file, or makes one of 256 bits. Spaces around it
// do not count.
func Token(path string) (string, error) {
	data, err := LoadOrCreate(path, func() ([]byte, error) {
		raw := make([]byte, 32)
		_, err := rand.Read(raw)
		return []byte(hex.EncodeToString(raw) + "\n"), err
	})
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(data))
	if len(token) < minToken {
		return "", fmt.Errorf("%s: the token is shorter than %d characters: remove the file and a new one is made", path, minToken)
	}
	return token, nil
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

// Write puts data at path whole, unless just that stands there already: a disk
// that is full must not keep a process from starting that has nothing new to
// write. A file that is there keeps its mode.
func Write(path string, data []byte, mode fs.FileMode) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	return renameio.WriteFile(path, data, mode, renameio.IgnoreUmask())
}
