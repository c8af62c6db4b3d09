// Package store keeps the last good set of gateway files on disk, so that a
// control plane that starts beside a bad one still has something to serve.
// Invariants: a set is replaced whole or not at all, also when the machine stops
// in between; it holds what the operator wrote and never what a reference stands
// for; a set of one -f is never given to another.
package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"

	"tollgate/xds/config"
)

// Set is a set of sources that parsed.
type Set struct {
	Revision string    // of the sources
	Since    time.Time // when it was first served
	Sources  []config.Source
}

// Revision names a set of sources by its content: equal on every control plane
// that has the same files, wherever they lie. base is the folder that their
// names are relative to.
func Revision(base string, sources []config.Source) string {
	h := sha256.New()
	for _, s := range sources {
		name := relative(base, s.Name)
		fmt.Fprintf(h, "%d:%s%d:", len(name), name, len(s.Data))
		h.Write(s.Data)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// LastGood is where the set of one -f is kept.
type LastGood struct {
	path  string
	base  string
	paths []string
}

// NewLastGood keeps the set of the given files and folders, whose names are
// relative to base, in dataDir/last-good.
func NewLastGood(dataDir, base string, paths []string) *LastGood {
	l := &LastGood{path: filepath.Join(dataDir, "last-good", "sources.json"), base: base}
	for _, p := range paths {
		l.paths = append(l.paths, relative(base, p))
	}
	return l
}

// stored is the file.
type stored struct {
	Paths    []string  `json:"paths"` // -f, relative to the folder of the first
	Revision string    `json:"revision"`
	Since    time.Time `json:"since"`
	Sources  []source  `json:"sources"`
}

type source struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// Load returns the set, or nil when there is none of these files. The error is
// about a set that is there and cannot be used.
func (l *LastGood) Load() (*Set, error) {
	data, err := os.ReadFile(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("last good set: %w", err)
	}
	var s stored
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&s); err != nil {
		return nil, fmt.Errorf("last good set %s: %w", l.path, err)
	}
	if !slices.Equal(s.Paths, l.paths) {
		return nil, nil
	}
	set := &Set{Revision: s.Revision, Since: s.Since}
	for _, one := range s.Sources {
		name := one.Name
		if !filepath.IsAbs(name) {
			name = filepath.Join(l.base, name)
		}
		set.Sources = append(set.Sources, config.Source{Name: name, Data: []byte(one.Text)})
	}
	if got := Revision(l.base, set.Sources); got != s.Revision {
		return nil, fmt.Errorf("last good set %s: its sources are of revision %s, not %s: somebody edited it", l.path, got, s.Revision)
	}
	return set, nil
}

// Save replaces the set; it is on disk when Save returns.
func (l *LastGood) Save(set Set) error {
	s := stored{Paths: l.paths, Revision: set.Revision, Since: set.Since}
	for _, one := range set.Sources {
		s.Sources = append(s.Sources, source{Name: relative(l.base, one.Name), Text: string(one.Data)})
	}
	data, err := json.Marshal(s)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(l.path), 0o700)
	}
	if err == nil {
		err = renameio.WriteFile(l.path, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("the last good set cannot be kept, a restart beside a bad file would fail: %w", err)
	}
	return nil
}

// relative is the shorter name of a path below base, else the path.
func relative(base, path string) string {
	name, err := filepath.Rel(base, path)
	if err != nil || !filepath.IsLocal(name) && name != "." {
		return path
	}
	return name
}
