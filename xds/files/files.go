// Package files brings the operator's files to the control plane: it reads the
// YAML sources and what their env: and file: references name, and it tells when
// any of them changed, however an editor saves. Invariant: what it reads is
// handed on as values and never written, logged or kept.
package files

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tollgate/xds/config"
)

// maxReference bounds a referenced file: a certificate chain or a key set, not a disk.
const maxReference = 1 << 20

// Set is what -f names: files and folders.
type Set struct {
	paths []string
}

// New returns a set of files and folders.
func New(paths []string) (*Set, error) {
	if len(paths) == 0 {
		return nil, errors.New("no gateway file: name one with -f FILE or -f FOLDER")
	}
	return &Set{paths: paths}, nil
}

// Dir is the folder of the first path: data and relative paths start there.
func (s *Set) Dir() string {
	if info, err := os.Stat(s.paths[0]); err == nil && info.IsDir() {
		return s.paths[0]
	}
	return filepath.Dir(s.paths[0])
}

// Read returns the sources and the values of their references. An error is
// about a source that cannot be read; a reference that cannot be read is a
// value that carries its error, so that Parse can say where it stands.
func (s *Set) Read() ([]config.Source, config.Values, error) {
	names, err := s.names()
	if err != nil {
		return nil, nil, err
	}
	var sources []config.Source
	for _, name := range names {
		data, err := readBounded(name, config.MaxSource+1)
		if err != nil {
			return nil, nil, err
		}
		sources = append(sources, config.Source{Name: name, Data: data})
	}
	return sources, values(sources), nil
}

// Referenced returns the files that the sources name.
func Referenced(sources []config.Source) []string {
	var paths []string
	for _, ref := range references(sources) {
		if path, ok := strings.CutPrefix(ref.Ref, "file:"); ok {
			paths = append(paths, resolve(ref.Source, path))
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

func (s *Set) names() ([]string, error) {
	var names []string
	for _, path := range s.paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("-f %s: %w", path, err)
		}
		if !info.IsDir() {
			names = append(names, path)
			continue
		}
		found, err := filepath.Glob(filepath.Join(path, "*.yaml"))
		if err != nil {
			return nil, fmt.Errorf("-f %s: %w", path, err)
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("-f %s: the folder has no *.yaml", path)
		}
		slices.Sort(found)
		names = append(names, found...)
	}
	return names, nil
}

func values(sources []config.Source) config.Values {
	out := config.Values{}
	for _, ref := range references(sources) {
		out[ref] = read(ref)
	}
	return out
}

func read(ref config.Reference) config.Value {
	if name, ok := strings.CutPrefix(ref.Ref, "env:"); ok {
		text, set := os.LookupEnv(name)
		if !set {
			return config.Value{Err: fmt.Errorf("the environment variable %s is not set", name)}
		}
		return config.Value{Text: text}
	}
	path := resolve(ref.Source, strings.TrimPrefix(ref.Ref, "file:"))
	data, err := readBounded(path, maxReference)
	if err != nil {
		return config.Value{Err: err}
	}
	return config.Value{Text: string(data)}
}

func resolve(source, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(source), path)
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, nil
}

// references is what Parse will need; what is wrong with a source is for Parse
// to say.
func references(sources []config.Source) []config.Reference {
	refs, err := config.References(sources)
	if err != nil {
		return nil
	}
	return refs
}
