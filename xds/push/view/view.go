// Package view holds what the push engine serves at one moment: a release, and
// what retires from the one before. Invariants: a view is never changed once made;
// what a route may still name stays in it until it is taken out by name; what
// changed between two views that are close is known without comparing them.
package view

import (
	"maps"
	"slices"
	"sync"

	"tollgate/xds/release"
)

// Section is one type for one audience.
type Section struct {
	Audience release.Audience
	URL      string
}

// Key names a resource for one audience.
type Key struct {
	Section
	Name string
}

// View is what is served at one moment: a release, and what retires from the
// one before. It is never changed once made.
type View struct {
	resources map[Section]*set
	Retiring  map[Key]bool
	// Full says that the proxies have their part, too: before, an empty answer
	// would be taken for "no listeners".
	Full bool

	Number    uint64
	revisions [2]string              // of the sources of what decides, and of the rest
	changes   []map[Section][]string // the last of them led to this view, the one before to number-1, …
}

// maxChanges is how many views a client may fall behind before all of its
// resources are compared.
const maxChanges = 32

// New returns a view of nothing.
func New() *View {
	return &View{resources: map[Section]*set{}, Retiring: map[Key]bool{}}
}

// Deciding picks the types of the servers that decide.
func Deciding(url string) bool {
	kind, _ := release.KindOf(url)
	return kind.Deciding
}

// Everything picks every type.
func Everything(string) bool { return true }

// Known says whether what there is of a type is all there is.
func (v *View) Known(url string) bool { return v.Full || Deciding(url) }

// Revision is that of the sources that a type was made from.
func (v *View) Revision(url string) string {
	if Deciding(url) {
		return v.revisions[0]
	}
	return v.revisions[1]
}

// With returns the view after the types that pick chooses moved to r, or v
// itself when nothing changed.
func (v *View) With(r *release.Release, pick func(url string) bool) *View {
	next := &View{
		Full: v.Full || pick(release.TypeListener), resources: maps.Clone(v.resources), Retiring: maps.Clone(v.Retiring), Number: v.Number + 1,
	}
	next.revisions = v.revisions
	for i, url := range []string{release.TypePolicy, release.TypeListener} {
		if pick(url) {
			next.revisions[i] = r.Revision
		}
	}
	changed := map[Section][]string{}
	for _, audience := range []release.Audience{release.Edge, release.GRPC} {
		for _, kind := range release.Kinds() {
			s := Section{audience, kind.URL}
			if !pick(s.URL) {
				continue
			}
			if names := next.merge(s, r, kind.Lasting); len(names) > 0 {
				changed[s] = names
			}
		}
	}
	if len(changed) == 0 && next.Full == v.Full && next.revisions == v.revisions && maps.Equal(next.Retiring, v.Retiring) {
		return v
	}
	if next.Full == v.Full {
		next.changes = append(slices.Clone(v.changes[max(0, len(v.changes)-maxChanges+1):]), changed)
	}
	return next
}

// merge moves one Section to a release and returns the names that changed.
func (v *View) merge(s Section, r *release.Release, lasting bool) []string {
	held := v.resources[s]
	if held == nil {
		held = &set{}
	}
	d := release.Diff(held.from, r, s.Audience, s.URL)
	next := &set{all: held.all, from: r, index: held.index}
	var changed []string
	change := func(name string, one *release.Resource) {
		if len(changed) == 0 {
			next.all, next.index = maps.Clone(held.all), &index{}
		}
		if next.all == nil {
			next.all = make(map[string]*release.Resource, len(d.Changed))
		}
		changed = append(changed, name)
		next.all[name] = one
		if one == nil {
			delete(next.all, name)
		}
	}
	for _, one := range d.Changed {
		delete(v.Retiring, Key{s, one.Name})
		if old := held.all[one.Name]; old == nil || old.Version != one.Version {
			change(one.Name, one)
		}
	}
	for _, name := range d.Gone {
		if lasting || v.scoped(s, name) {
			v.Retiring[Key{s, name}] = true
			continue
		}
		change(name, nil)
	}
	if next.index == nil {
		next.index = &index{}
	}
	v.resources[s] = next
	return changed
}

// scoped says whether a scope names a route configuration; those that retire
// were merged before it.
func (v *View) scoped(s Section, name string) bool {
	if s.URL != release.TypeRoute {
		return false
	}
	scope := v.Get(s.Audience, release.TypeScope, name) // its routes bear its name
	return scope != nil && slices.Contains(scope.Refs, release.Ref{Type: s.URL, Name: name})
}

// Without returns the view less some resources.
func (v *View) Without(gone []Key) *View {
	if len(gone) == 0 {
		return v
	}
	next := &View{Full: v.Full, revisions: v.revisions, resources: maps.Clone(v.resources), Retiring: maps.Clone(v.Retiring), Number: v.Number + 1}
	changed := map[Section][]string{}
	for _, k := range gone {
		if changed[k.Section] == nil {
			held := next.resources[k.Section]
			next.resources[k.Section] = &set{all: maps.Clone(held.all), from: held.from, index: &index{}}
		}
		delete(next.Retiring, k)
		delete(next.resources[k.Section].all, k.Name)
		changed[k.Section] = append(changed[k.Section], k.Name)
	}
	next.changes = append(slices.Clone(v.changes[max(0, len(v.changes)-maxChanges+1):]), changed)
	return next
}

// Since returns what changed in a Section after an earlier view; ok is false
// when that is too long ago to tell.
func (v *View) Since(number uint64, s Section) (names []string, ok bool) {
	behind := v.Number - number
	if behind > uint64(len(v.changes)) {
		return nil, false
	}
	for _, change := range v.changes[uint64(len(v.changes))-behind:] {
		names = append(names, change[s]...)
	}
	return names, true
}

// Get returns a resource, or nil.
func (v *View) Get(audience release.Audience, url, name string) *release.Resource {
	return v.All(audience, url)[name]
}

// All returns what there is of one type, by name; it must not be changed.
func (v *View) All(audience release.Audience, url string) map[string]*release.Resource {
	if one := v.resources[Section{audience, url}]; one != nil {
		return one.all
	}
	return nil
}

// Naming returns the listeners and clusters that name a secret.
func (v *View) Naming(audience release.Audience, secret string) []*release.Resource {
	var found []*release.Resource
	for _, url := range []string{release.TypeListener, release.TypeCluster} {
		if one := v.resources[Section{audience, url}]; one != nil {
			found = append(found, one.naming(secret)...)
		}
	}
	return found
}

// set is all there is of one type for one audience.
type set struct {
	all  map[string]*release.Resource
	from *release.Release // which it was last moved to
	*index
}

// index is who names which secret, as far as somebody asked.
type index struct {
	once    sync.Once
	secrets map[string][]*release.Resource // by the name of what they name
}

func (s *set) naming(secret string) []*release.Resource {
	s.once.Do(func() {
		s.secrets = map[string][]*release.Resource{}
		for _, one := range s.all {
			for _, ref := range one.Refs {
				if ref.Type == release.TypeSecret {
					s.secrets[ref.Name] = append(s.secrets[ref.Name], one)
				}
			}
		}
	})
	return s.secrets[secret]
}
