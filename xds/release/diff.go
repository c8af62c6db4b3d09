package release

import "slices"

// Difference is what one release has of a type that another has not.
type Difference struct {
	Changed []*Resource // new, or of another version; in no order
	Gone    []string    // names that the other has alone, sorted
}

// Diff returns what leads from one release to the next, of one type for one
// audience. It costs nothing where the two share all of it; nil is an empty
// release.
func Diff(from, to *Release, audience Audience, typeURL string) Difference {
	var d Difference
	if from != nil && to.Shares(from, audience, typeURL) {
		return d
	}
	var before map[string]*Resource
	if from != nil {
		before = from.byKind[kind{audience, typeURL}]
	}
	after, stayed := to.byKind[kind{audience, typeURL}], 0
	for name, one := range after {
		old := before[name]
		if old != nil {
			stayed++
		}
		if old != one && (old == nil || old.Version != one.Version) {
			d.Changed = append(d.Changed, one)
		}
	}
	if stayed == len(before) {
		return d
	}
	for name := range before {
		if after[name] == nil {
			d.Gone = append(d.Gone, name)
		}
	}
	slices.Sort(d.Gone)
	return d
}
