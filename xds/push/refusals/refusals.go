// Package refusals remembers what clients refused, so that nobody is sent the
// same again. Invariants: a record belongs to one stream; it outlives it only for
// the authenticated client that made it, only into one later stream, and for ten
// minutes; what is kept is bounded.
package refusals

import (
	"sync"
	"time"

	"tollgate/xds/release"
)

const (
	rememberFor = 10 * time.Minute
	// maxContents bounds what is remembered of one client that refuses all it is
	// sent; beyond, it may be sent old content once more.
	maxContents = 100_000
	// maxClients bounds of how many that left a record is kept.
	maxClients = 10_000
)

// Record is what the client of one stream refused. The zero value is ready.
type Record struct {
	words map[content]string
	doubt map[subject]bool
}

type content struct{ url, name, version string }

// subject is a resource whatever its version.
type subject struct{ url, name string }

// Add notes that one version was refused, in which words. The name is empty for
// a response of the state of the world, which is refused as a whole.
func (r *Record) Add(url, name, version, why string) {
	if r.words == nil || len(r.words) >= maxContents {
		r.words = map[content]string{}
	}
	r.words[content{url, name, version}] = Clip(why)
}

// Has says whether one version was refused, and in which words.
func (r *Record) Has(url, name, version string) (why string, refused bool) {
	why, refused = r.words[content{url, name, version}]
	return why, refused
}

// Doubt notes that a resource was in a refused batch without being to blame:
// the client may run it or not, and will say after a reconnect that it has the
// one before, either way.
func (r *Record) Doubt(one *release.Resource) {
	if r.doubt == nil || len(r.doubt) >= maxContents {
		r.doubt = map[subject]bool{}
	}
	r.doubt[subject{one.Type, one.Name}] = true
}

// Doubts returns the names on which a client's word about what it has is wrong.
func (r *Record) Doubts(url string) []string {
	var names []string
	for s := range r.doubt {
		if s.url == url {
			names = append(names, s.name)
		}
	}
	return names
}

// Trust ends the doubt, after the client has taken some version.
func (r *Record) Trust(one *release.Resource) { delete(r.doubt, subject{one.Type, one.Name}) }

// Forget forgets what was refused, so that it may be sent again.
func (r *Record) Forget() { r.words = nil }

// Archive keeps the records of clients that left. It is safe for concurrent use;
// the zero value is ready.
type Archive struct {
	mu   sync.Mutex
	kept map[string]kept
}

type kept struct {
	at     time.Time
	record Record
}

// Keep takes the record of a client whose stream ended, in place of any earlier.
func (a *Archive) Keep(client string, r Record, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.kept, client)
	if len(r.words)+len(r.doubt) == 0 {
		return
	}
	if a.kept == nil {
		a.kept = map[string]kept{}
	}
	if len(a.kept) < maxClients {
		a.kept[client] = kept{now, r}
	}
}

// Take returns the record of a client that is back and carries on; nobody else
// gets the same.
func (a *Archive) Take(client string, now time.Time) Record {
	a.mu.Lock()
	defer a.mu.Unlock()
	k := a.kept[client]
	delete(a.kept, client)
	if now.Sub(k.at) > rememberFor {
		return Record{}
	}
	return k.record
}

// Drop forgets a client that left.
func (a *Archive) Drop(client string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.kept, client)
}

// Len is of how many clients a record is kept.
func (a *Archive) Len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.kept)
}

// Forget drops the clients that have been gone for too long.
func (a *Archive) Forget(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for client, k := range a.kept {
		if now.Sub(k.at) > rememberFor {
			delete(a.kept, client)
		}
	}
}
