package files

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"tollgate/xds/config"
)

// Reading is what the files of a set said at one moment.
type Reading struct {
	Names   []string // in order; key stores that lie in a folder are left out
	Sources []config.Source
	Unread  []Unread // the names that are no source

	mu     sync.Mutex
	values config.Values // what was asked for
}

// Unread is a file that is named and cannot be read.
type Unread struct {
	Name string
	Err  error
}

// Resolve gives what a reference stands for, the same however often it is asked
// of one reading. From then on the set watches the file that it names.
func (r *Reading) Resolve(ref config.Reference) config.Value {
	r.mu.Lock()
	defer r.mu.Unlock()
	value, known := r.values[ref]
	if !known {
		value = read(ref)
		r.values[ref] = value
	}
	return value
}

// Same reports whether r says what last said, so that parsing it would say
// nothing new. It reads the files that last was asked for and decodes nothing.
func (r *Reading) Same(last *Reading) bool {
	same := slices.EqualFunc(r.Sources, last.Sources, func(a, b config.Source) bool {
		return a.Name == b.Name && bytes.Equal(a.Data, b.Data)
	}) && slices.EqualFunc(r.Unread, last.Unread, func(a, b Unread) bool {
		return a.Name == b.Name && a.Err.Error() == b.Err.Error()
	})
	last.mu.Lock()
	asked := maps.Clone(last.values)
	last.mu.Unlock()
	for ref, was := range asked { // all of them: what is not asked again is not watched
		now := r.Resolve(ref)
		same = same && now.Text == was.Text && fmt.Sprint(now.Err) == fmt.Sprint(was.Err)
	}
	return same
}

// files are the paths of the file: references asked for.
func (r *Reading) files() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var paths []string
	for ref := range r.values {
		if path := trim(ref); path != "" {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

func read(ref config.Reference) config.Value {
	if name, ok := strings.CutPrefix(ref.Ref, "env:"); ok {
		text, set := os.LookupEnv(name)
		if !set {
			return config.Value{Err: fmt.Errorf("the environment variable %s is not set", name)}
		}
		return config.Value{Text: text}
	}
	data, err := readBounded(trim(ref), maxReference)
	if err != nil {
		return config.Value{Err: err}
	}
	return config.Value{Text: string(data)}
}
