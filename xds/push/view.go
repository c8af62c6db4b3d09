package push

import (
	"maps"
	"slices"

	"tollgate/xds/release"
)

// key names a resource for one audience.
type key struct {
	audience release.Audience
	url      string
	name     string
}

// mention is how routes name the thing, see references.
func (k key) mention() string { return string(k.audience) + " " + k.url + " " + k.name }

// view is what is served at one moment: a release, and what retires from the
// one before. It is never changed once made.
type view struct {
	resources map[release.Audience]map[string]map[string]*release.Resource // audience → type → name
	retiring  map[key]bool
	full      bool // proxies have their part, too; before, an empty answer would be taken for "no listeners"
}

func newView() *view {
	return &view{resources: map[release.Audience]map[string]map[string]*release.Resource{}, retiring: map[key]bool{}}
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

// lasting says whether a vanished resource of a type stays until no route
// names it. Envoy ignores the removal of the others.
func lasting(url string) bool {
	return url == release.TypeCluster || url == release.TypeEndpoint || url == release.TypePolicy || url == release.TypeRuleSet
}

// with returns the view after the types that pick chooses moved to r, or v
// itself when nothing changed.
func (v *view) with(r *release.Release, pick func(url string) bool) *view {
	next := &view{
		full: v.full || pick(release.TypeListener), resources: map[release.Audience]map[string]map[string]*release.Resource{}, retiring: maps.Clone(v.retiring),
	}
	changed := next.full != v.full
	for _, audience := range []release.Audience{release.Edge, release.GRPC} {
		next.resources[audience] = map[string]map[string]*release.Resource{}
		for _, url := range kinds {
			held := v.resources[audience][url]
			if !pick(url) {
				next.resources[audience][url] = held
				continue
			}
			want, differs := next.merge(audience, url, held, r)
			next.resources[audience][url] = want
			changed = changed || differs
		}
	}
	if !changed {
		return v
	}
	return next
}

func (v *view) merge(audience release.Audience, url string, held map[string]*release.Resource, r *release.Release) (map[string]*release.Resource, bool) {
	want := map[string]*release.Resource{}
	changed := false
	for _, name := range r.Names(audience, url) {
		one := r.Get(audience, url, name)
		old := held[name]
		if old != nil && old.Version == one.Version {
			one = old
		} else {
			changed = true
		}
		want[name] = one
		if k := (key{audience, url, name}); v.retiring[k] {
			delete(v.retiring, k)
			changed = true
		}
	}
	for name, old := range held {
		if want[name] != nil {
			continue
		}
		if !lasting(url) {
			changed = true
			continue
		}
		want[name] = old
		if k := (key{audience, url, name}); !v.retiring[k] {
			v.retiring[k] = true
			changed = true
		}
	}
	return want, changed
}

// without returns the view less some resources.
func (v *view) without(gone []key) *view {
	if len(gone) == 0 {
		return v
	}
	next := &view{full: v.full, resources: map[release.Audience]map[string]map[string]*release.Resource{}, retiring: maps.Clone(v.retiring)}
	for audience, types := range v.resources {
		next.resources[audience] = maps.Clone(types)
	}
	for _, k := range gone {
		delete(next.retiring, k)
		types := next.resources[k.audience]
		types[k.url] = maps.Clone(types[k.url])
		delete(types[k.url], k.name)
	}
	return next
}

func (v *view) get(audience release.Audience, url, name string) *release.Resource {
	return v.resources[audience][url][name]
}

func (v *view) all(audience release.Audience, url string) map[string]*release.Resource {
	return v.resources[audience][url]
}

func sortedNames(m map[string]*release.Resource) []string { return slices.Sorted(maps.Keys(m)) }
