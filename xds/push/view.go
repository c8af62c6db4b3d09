package push

import (
	"maps"
	"slices"

	"tollgate/xds/push/routes"
	"tollgate/xds/release"
)

// section is one type for one audience.
type section struct {
	audience release.Audience
	url      string
}

// key names a resource for one audience.
type key struct {
	section
	name string
}

func (k key) mention() string { return routes.Mention(k.audience, k.url, k.name) }

// view is what is served at one moment: a release, and what retires from the
// one before. It is never changed once made.
type view struct {
	resources map[section]map[string]*release.Resource
	retiring  map[key]bool
	full      bool // proxies have their part, too; before, an empty answer would be taken for "no listeners"

	number  uint64
	changes []map[section][]string // the last of them led to this view, the one before to number-1, …
}

// maxChanges is how many views a client may fall behind before all of its
// resources are compared.
const maxChanges = 32

func newView() *view {
	return &view{resources: map[section]map[string]*release.Resource{}, retiring: map[key]bool{}}
}

// kinds are the types in the order in which they are sent: who is named comes
// before who names it.
var kinds = [...]string{ //nolint:gochecknoglobals // a constant; Go has no constant arrays
	release.TypeRuntime, release.TypeIdentity, release.TypePolicy, release.TypeRuleSet, release.TypeRateLimit,
	release.TypeCluster, release.TypeEndpoint, release.TypeSecret, release.TypeListener, release.TypeRoute,
}

// deciding says whether a type goes to the servers that decide.
func deciding(url string) bool {
	switch url {
	case release.TypeIdentity, release.TypePolicy, release.TypeRuleSet, release.TypeRateLimit:
		return true
	}
	return false
}

func everything(string) bool { return true }

// listed says whether a request that names nothing asks for all there is. An
// Envoy that lost its last listener asks so for routes and wants none.
func listed(url string) bool {
	return url == release.TypeCluster || url == release.TypeListener || deciding(url)
}

// lasting says whether a vanished resource of a type stays until no route
// names it. Envoy ignores the removal of the others.
func lasting(url string) bool {
	return url == release.TypeCluster || url == release.TypeEndpoint || url == release.TypePolicy || url == release.TypeRuleSet
}

// with returns the view after the types that pick chooses moved to r, or v
// itself when nothing changed.
func (v *view) with(r *release.Release, pick func(url string) bool) *view {
	next := &view{
		full: v.full || pick(release.TypeListener), resources: maps.Clone(v.resources), retiring: maps.Clone(v.retiring), number: v.number + 1,
	}
	changed := map[section][]string{}
	for _, audience := range []release.Audience{release.Edge, release.GRPC} {
		for _, url := range kinds {
			if !pick(url) {
				continue
			}
			s := section{audience, url}
			if names := next.merge(s, r); len(names) > 0 {
				changed[s] = names
			}
		}
	}
	if len(changed) == 0 && next.full == v.full && maps.Equal(next.retiring, v.retiring) {
		return v
	}
	if next.full == v.full {
		next.changes = append(slices.Clone(v.changes[max(0, len(v.changes)-maxChanges+1):]), changed)
	}
	return next
}

// merge moves one section to a release and returns the names that changed.
func (v *view) merge(s section, r *release.Release) []string {
	held := v.resources[s]
	var fresh []*release.Resource
	var changed []string
	for one := range r.Resources(s.audience, s.url) {
		delete(v.retiring, key{s, one.Name})
		if old := held[one.Name]; old == nil || old.Version != one.Version {
			fresh, changed = append(fresh, one), append(changed, one.Name)
		}
	}
	var gone []string
	for name := range held {
		if r.Get(s.audience, s.url, name) != nil {
			continue
		}
		if lasting(s.url) {
			v.retiring[key{s, name}] = true
			continue
		}
		gone = append(gone, name)
	}
	if len(fresh)+len(gone) == 0 {
		return nil
	}
	want := maps.Clone(held)
	if want == nil {
		want = make(map[string]*release.Resource, len(fresh))
	}
	for _, one := range fresh {
		want[one.Name] = one
	}
	for _, name := range gone {
		delete(want, name)
	}
	v.resources[s] = want
	return append(changed, gone...)
}

// without returns the view less some resources.
func (v *view) without(gone []key) *view {
	if len(gone) == 0 {
		return v
	}
	next := &view{full: v.full, resources: maps.Clone(v.resources), retiring: maps.Clone(v.retiring), number: v.number + 1}
	changed := map[section][]string{}
	for _, k := range gone {
		if changed[k.section] == nil {
			next.resources[k.section] = maps.Clone(next.resources[k.section])
		}
		delete(next.retiring, k)
		delete(next.resources[k.section], k.name)
		changed[k.section] = append(changed[k.section], k.name)
	}
	next.changes = append(slices.Clone(v.changes[max(0, len(v.changes)-maxChanges+1):]), changed)
	return next
}

// since returns what changed in a section after an earlier view; ok is false
// when that is too long ago to tell.
func (v *view) since(number uint64, s section) (names []string, ok bool) {
	behind := v.number - number
	if behind > uint64(len(v.changes)) {
		return nil, false
	}
	for _, change := range v.changes[uint64(len(v.changes))-behind:] {
		names = append(names, change[s]...)
	}
	return names, true
}

func (v *view) get(audience release.Audience, url, name string) *release.Resource {
	return v.resources[section{audience, url}][name]
}

func (v *view) all(audience release.Audience, url string) map[string]*release.Resource {
	return v.resources[section{audience, url}]
}

func sortedNames(m map[string]*release.Resource) []string { return slices.Sorted(maps.Keys(m)) }
