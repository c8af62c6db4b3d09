// Package files brings the operator's files to the control plane: it reads the
// YAML sources and what their env: and file: references name, and it tells when
// any of them changed, however an editor saves. Invariants: what it reads is
// handed on as values and never written or logged; waiting for a change costs a
// look at each file's date, never a read, and at most one part in five hundred
// of the time; a file that is as it was is not read again.
package files

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"tollgate/xds/config"
	"tollgate/xds/config/language"
)

// maxReference bounds a referenced file: a certificate chain or a key set, not a disk.
const maxReference = 1 << 20

// Set is what -f names: files and folders.
type Set struct {
	paths []string

	mu      sync.Mutex
	reading *Reading // the last
	seen    *look    // by the watch, not read since
	known   map[string]content
}

// New returns a set of files and folders.
func New(paths []string) (*Set, error) {
	if len(paths) == 0 {
		return nil, errors.New("no gateway file: name one with -f FILE or -f FOLDER")
	}
	return &Set{paths: paths, known: map[string]content{}}, nil
}

// Paths are the files and folders as they were given.
func (s *Set) Paths() []string { return slices.Clone(s.paths) }

// Dir is the folder of the first path: data and relative paths start there.
func (s *Set) Dir() string {
	if info, err := os.Stat(s.paths[0]); err == nil && info.IsDir() {
		return s.paths[0]
	}
	return filepath.Dir(s.paths[0])
}

// Read returns what the files say now, or said when the watch told of a change
// that was not read yet. A file whose date and size are those of when it was read
// last is not read again. An error is about the set as a whole, such as a folder
// without files.
func (s *Set) Read() (*Reading, error) {
	s.mu.Lock()
	l := s.seen
	s.seen = nil
	s.mu.Unlock()
	if l == nil {
		l = s.look()
	}
	if l.err != nil {
		return nil, l.err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &Reading{values: config.Values{}}
	for i, name := range l.names {
		file, err := s.content(name.path, l.stamps[i])
		switch {
		case err != nil && len(l.names) == 1:
			return nil, unreadable(name.path, err)
		case err != nil:
			r.Names = append(r.Names, name.path)
			r.Unread = append(r.Unread, Unread{name.path, err})
		case name.found && file.keyStore:
		default:
			r.Names = append(r.Names, name.path)
			r.Sources = append(r.Sources, config.Source{Name: name.path, Data: file.data})
		}
	}
	s.forget(l.names)
	s.reading = r
	return r, nil
}

// forget drops what was read of files that are no more, when that is most.
func (s *Set) forget(names []name) {
	if len(s.known) <= 2*len(names)+16 {
		return
	}
	there := make(map[string]bool, len(names))
	for _, n := range names {
		there[n.path] = true
	}
	maps.DeleteFunc(s.known, func(path string, _ content) bool { return !there[path] })
}

// Parse reads the files and parses them.
func (s *Set) Parse() (*config.Gateway, []config.Fault, error) {
	r, err := s.Read()
	if err != nil {
		return nil, nil, err
	}
	var unread []error
	for _, u := range r.Unread {
		unread = append(unread, u.Err)
	}
	if err := errors.Join(unread...); err != nil {
		return nil, nil, err
	}
	return language.Parse(r.Sources, r.Resolve)
}

// unreadable is the error of a path, which it names once.
func unreadable(path string, err error) error {
	var fault *fs.PathError
	if errors.As(err, &fault) {
		err = fault.Err
	}
	return fmt.Errorf("%s: %w: name a gateway file, or a folder of them", path, err)
}

// name is one file of the set.
type name struct {
	path  string
	found bool // in a folder, not named itself
}

func (s *Set) names() ([]name, error) {
	var names []name
	for _, path := range s.paths {
		info, err := os.Stat(path)
		if err != nil && len(s.paths) == 1 {
			return nil, unreadable(path, err)
		}
		if err != nil || !info.IsDir() {
			names = append(names, name{path: path})
			continue
		}
		found, err := filepath.Glob(filepath.Join(path, "*.yaml"))
		if err != nil {
			return nil, unreadable(path, err)
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("%s: the folder has no *.yaml", path)
		}
		slices.Sort(found)
		for _, one := range found {
			names = append(names, name{path: one, found: true})
		}
	}
	return names, nil
}

// keyStore tells the file of API keys, which lives in the same folder, from a
// gateway file: `keys` is all that stands at its margin.
func keyStore(data []byte) bool {
	found := false
	for line := range bytes.Lines(data) {
		line = bytes.TrimRight(line, " \t\r\n")
		switch {
		case len(line) == 0, line[0] == '#', line[0] == ' ', line[0] == '-' || line[0] == ']', bytes.HasPrefix(line, []byte("---")):
		case bytes.HasPrefix(line, []byte("keys:")), bytes.HasPrefix(line, []byte("{keys:")), bytes.HasPrefix(line, []byte(`{"keys":`)):
			found = true
		default:
			return false
		}
	}
	return found
}

// readBounded reads a regular file. Opening a pipe waits for whoever writes to
// it, and would end reloading for the life of the process.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file (%s): write a file, or a link to one", path, info.Mode().Type())
	}
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, nil
}

func resolve(source, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(source), path)
}

// referenced are the files that the last reading was asked for.
func (s *Set) referenced() []string {
	s.mu.Lock()
	r := s.reading
	s.mu.Unlock()
	if r == nil {
		return nil
	}
	return r.files()
}

// trim is the path of a file: reference, "" of another.
func trim(ref config.Reference) string {
	if path, ok := strings.CutPrefix(ref.Ref, "file:"); ok {
		return resolve(ref.Source, path)
	}
	return ""
}
