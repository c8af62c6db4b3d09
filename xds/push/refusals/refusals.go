// Package refusals remembers what clients refused, beyond their connection.
// Invariant: what a node refused is known for as long as it is connected and ten
// minutes more, so that it is never sent the same again.
package refusals

import (
	"sync"
	"time"

	"tollgate/xds/release"
)

const (
	rememberFor = 10 * time.Minute
	// maxContents bounds what is remembered of one node that refuses all it is
	// sent; beyond, it may be sent old content once more.
	maxContents = 100_000
)

// Memory is safe for concurrent use. The zero value is ready.
type Memory struct {
	mu    sync.Mutex
	nodes map[string]node
}

type node struct {
	at    time.Time // of the last refusal, or when it was last seen connected
	what  map[content]bool
	doubt map[subject]bool
}

type content struct{ url, name, version string }

// subject is a resource whatever its version.
type subject struct{ url, name string }

func of(one *release.Resource) content { return content{one.Type, one.Name, one.Version} }

// Add notes that a node refused a resource.
func (m *Memory) Add(id string, one *release.Resource, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nodes[id]
	if n.what == nil || len(n.what) >= maxContents {
		n.what = map[content]bool{}
	}
	n.at = now
	n.what[of(one)] = true
	if m.nodes == nil {
		m.nodes = map[string]node{}
	}
	m.nodes[id] = n
}

// Has says whether a node refused a resource.
func (m *Memory) Has(id string, one *release.Resource) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.nodes[id].what[of(one)]
}

// Doubt notes that a resource was in a refused batch without being to blame:
// the node may run it or not, and will say after a reconnect that it has the one
// before, either way.
func (m *Memory) Doubt(id string, one *release.Resource, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.nodes == nil {
		m.nodes = map[string]node{}
	}
	n := m.nodes[id]
	if n.doubt == nil {
		n.doubt = map[subject]bool{}
	}
	n.at = now
	n.doubt[subject{one.Type, one.Name}] = true
	m.nodes[id] = n
}

// Doubts returns the names on which a node's word about what it has is wrong.
func (m *Memory) Doubts(id, url string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for s := range m.nodes[id].doubt {
		if s.url == url {
			names = append(names, s.name)
		}
	}
	return names
}

// Trust ends the doubt, after the node has taken some version.
func (m *Memory) Trust(id string, one *release.Resource) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.nodes[id].doubt, subject{one.Type, one.Name})
}

// Forget drops nodes that have been gone for long; connected says who is there.
func (m *Memory) Forget(connected map[string]bool, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, n := range m.nodes {
		switch {
		case connected[id]:
			n.at = now
			m.nodes[id] = n
		case now.Sub(n.at) > rememberFor:
			delete(m.nodes, id)
		}
	}
}
