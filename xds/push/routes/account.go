package routes

import (
	"slices"
	"time"

	"tollgate/xds/release"
)

// Account is which route configurations one client was sent and runs. The zero
// value is ready.
type Account struct {
	sent    map[string]*release.Resource // the last
	running map[string]*release.Resource // the last that was taken
	blind   map[string]struct{}          // it runs a version whose content is not known here
	left    time.Time                    // when routes were last taken
}

// Sent notes what is on its way.
func (a *Account) Sent(one *release.Resource) {
	if a.sent == nil {
		a.sent = map[string]*release.Resource{}
	}
	a.sent[one.Name] = one
}

// Took notes what the client runs from now on.
func (a *Account) Took(one *release.Resource, now time.Time) {
	a.runs(one)
	a.left = now
}

// Recognised notes what the client turns out to run for long.
func (a *Account) Recognised(one *release.Resource) {
	a.Sent(one)
	a.runs(one)
}

func (a *Account) runs(one *release.Resource) {
	if a.running == nil {
		a.running = map[string]*release.Resource{}
	}
	a.running[one.Name] = one
	delete(a.blind, one.Name)
}

// Brought notes that it runs something that is not known here.
func (a *Account) Brought(name string) {
	if a.blind == nil {
		a.blind = map[string]struct{}{}
	}
	a.blind[name] = struct{}{}
}

// Back notes that what was sent last did not get there.
func (a *Account) Back(name string) {
	delete(a.sent, name)
	if a.running[name] != nil {
		a.Sent(a.running[name])
	}
}

// Forget notes that the client runs it no more.
func (a *Account) Forget(name string) {
	delete(a.sent, name)
	delete(a.running, name)
	delete(a.blind, name)
}

// Last is the form that was sent last; nil when none was.
func (a *Account) Last(name string) *release.Resource { return a.sent[name] }

// Left is when routes were last taken; the zero time when none were.
func (a *Account) Left() time.Time { return a.left }

// MayName says whether the routes that it runs, or is sent, name a cluster, as
// far as is known.
func (a *Account) MayName(cluster string) bool {
	for _, configs := range []map[string]*release.Resource{a.sent, a.running} {
		for _, one := range configs {
			if slices.Contains(one.Refs, release.Ref{Type: release.TypeCluster, Name: cluster}) {
				return true
			}
		}
	}
	return len(a.blind) > 0
}

// Uses adds what it runs, or is sent, by version; it returns false when it runs
// something that is not known here.
func (a *Account) Uses(versions map[string]*release.Resource) bool {
	for _, configs := range []map[string]*release.Resource{a.sent, a.running} {
		for _, one := range configs {
			versions[one.Version] = one
		}
	}
	return len(a.blind) == 0
}
