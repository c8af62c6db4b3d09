// Package due keeps the names that must be compared with what is served.
// Invariant: however often a name is added, what is kept is bounded by the names.
package due

import "slices"

// few are not worth sorting while they are added.
const few = 64

// Names may hold one more than once until they are taken. The zero value is ready.
type Names struct {
	names  []string
	sorted int // this many, when they were last sorted
}

// Add makes a name due.
func (d *Names) Add(name string) {
	if n := len(d.names); n >= few && n >= 2*d.sorted {
		d.sort()
	}
	d.names = append(d.names, name)
}

// All makes the names of a set due.
func (d *Names) All(names map[string]struct{}) {
	for name := range names {
		d.Add(name)
	}
}

// Any says whether any is due.
func (d *Names) Any() bool { return len(d.names) > 0 }

// Take returns the names, and those that still wait, sorted and each once; none
// is due afterwards.
func (d *Names) Take(waiting []string) []string {
	d.names = append(d.names, waiting...)
	d.sort()
	names := d.names
	*d = Names{}
	return names
}

func (d *Names) sort() {
	slices.Sort(d.names)
	d.names = slices.Compact(d.names)
	d.sorted = len(d.names)
}
