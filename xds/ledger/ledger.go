// Package ledger is the account of who runs what: for every client of the
// control plane and every type, what it was sent, whether it took it, and in
// whose words it refused. Invariant: it is a record and decides nothing; the
// words of a refusal are cut and free of secrets before they are kept.
package ledger

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// State is where a client is with one type.
type State string

// The states.
const (
	Synced  State = "SYNCED"  // took all it was sent
	Pending State = "PENDING" // has not answered yet
	Warming State = "WARMING" // clusters: withholds its answer while any of them warms
	Refused State = "REFUSED" // serves its last good config
	Gone    State = "GONE"    // not connected
)

const (
	rememberGone = 10 * time.Minute
	warmingAfter = time.Second
	maxWords     = 200
	maxRefusals  = 20
	clusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
)

// Line is one row of the account.
type Line struct {
	Node     string    `json:"node"`
	Identity string    `json:"identity,omitempty"`
	Type     string    `json:"type"`
	Config   string    `json:"config"`
	State    State     `json:"state"`
	Since    time.Time `json:"since"`
	Refusals []Refusal `json:"refusals,omitempty"`
}

// Refusal is one resource with the client's words, cut and redacted.
type Refusal struct {
	Resource string `json:"resource"`
	Why      string `json:"why"`
}

// Ledger is safe for concurrent use.
type Ledger struct {
	now func() time.Time

	mu    sync.Mutex
	nodes map[string]*node
}

type node struct {
	connections int
	identity    string
	gone        time.Time
	types       map[string]*entry
}

type entry struct {
	version  string
	inFlight int
	since    time.Time // of the state
	refusals map[string]string
}

// New returns an empty ledger; now is the clock.
func New(now func() time.Time) *Ledger {
	return &Ledger{now: now, nodes: map[string]*node{}}
}

// Connected notes a new stream of a node, and the authenticated name of its
// client; empty when there is none.
func (l *Ledger) Connected(id, identity string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.nodes[id]
	if n == nil {
		n = &node{types: map[string]*entry{}}
		l.nodes[id] = n
	}
	n.connections++
	n.identity = identity
	for _, e := range n.types {
		e.inFlight = 0 // answers to an earlier stream never come
	}
}

// Gone notes the end of a stream.
func (l *Ledger) Gone(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.nodes[id]; n != nil {
		if n.connections--; n.connections <= 0 {
			n.connections, n.gone = 0, l.now()
		}
	}
	for id, n := range l.nodes {
		if n.connections == 0 && l.now().Sub(n.gone) > rememberGone {
			delete(l.nodes, id)
		}
	}
}

// Sent notes a response with the names in it.
func (l *Ledger) Sent(id, typeURL, version string, names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entry(id, typeURL)
	if version != "" {
		e.version = version
	}
	if e.inFlight++; e.inFlight == 1 {
		e.since = l.now()
	}
	for _, name := range names {
		delete(e.refusals, name)
	}
	delete(e.refusals, "")
}

// Acked notes that a response was taken.
func (l *Ledger) Acked(id, typeURL string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entry(id, typeURL).answered(l.now())
}

// Refused notes that a response was refused, and which resources are to blame;
// none named means that nobody knows.
func (l *Ledger) Refused(id, typeURL string, names []string, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entry(id, typeURL)
	e.answered(l.now())
	if len(names) == 0 {
		names = []string{""}
	}
	for _, name := range names {
		if len(e.refusals) < maxRefusals {
			e.refusals[name] = redact(why)
		}
	}
	e.since = l.now()
}

// Settled notes resources of which a node has what it should have, or which it
// should not have any more: what it said of them before is history.
func (l *Ledger) Settled(id, typeURL string, names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.nodes[id]
	if n == nil || n.types[typeURL] == nil {
		return
	}
	e := n.types[typeURL]
	if len(e.refusals) == 0 {
		return
	}
	for _, name := range names {
		delete(e.refusals, name)
	}
	if len(e.refusals) == 0 {
		e.since = l.now()
	}
}

func (l *Ledger) entry(id, typeURL string) *entry {
	n := l.nodes[id]
	if n == nil {
		n = &node{types: map[string]*entry{}, gone: l.now()}
		l.nodes[id] = n
	}
	e := n.types[typeURL]
	if e == nil {
		e = &entry{since: l.now(), refusals: map[string]string{}}
		n.types[typeURL] = e
	}
	return e
}

func (e *entry) answered(now time.Time) {
	if e.inFlight = max(e.inFlight-1, 0); e.inFlight == 0 {
		e.since = now
	}
}

// Lines returns the account, sorted by node and type.
func (l *Ledger) Lines() []Line {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	lines := []Line{}
	for id, n := range l.nodes {
		for typeURL, e := range n.types {
			line := Line{Node: id, Identity: n.identity, Type: short(typeURL), Config: e.version, State: e.state(typeURL, now), Since: e.since}
			if n.connections == 0 {
				line.State, line.Since = Gone, n.gone
			}
			for name, why := range e.refusals {
				line.Refusals = append(line.Refusals, Refusal{Resource: name, Why: why})
			}
			slices.SortFunc(line.Refusals, func(a, b Refusal) int { return cmp.Compare(a.Resource, b.Resource) })
			lines = append(lines, line)
		}
	}
	slices.SortFunc(lines, func(a, b Line) int { return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Type, b.Type)) })
	return lines
}

func (e *entry) state(typeURL string, now time.Time) State {
	switch {
	case len(e.refusals) > 0:
		return Refused
	case e.inFlight > 0 && typeURL == clusterType && now.Sub(e.since) > warmingAfter:
		return Warming
	case e.inFlight > 0:
		return Pending
	}
	return Synced
}

// short is the last word of a type URL, lower case: "cluster".
func short(typeURL string) string {
	return strings.ToLower(typeURL[strings.LastIndexByte(typeURL, '.')+1:])
}

// redact cuts a refusal before anything in it that may be a secret or a dump
// of config, and to a length that a terminal shows.
func redact(why string) string {
	why = strings.Join(strings.Fields(why), " ")
	if cut := secretAt(why); cut >= 0 {
		why = why[:cut] + "…"
	}
	if len(why) > maxWords {
		why = strings.ToValidUTF8(why[:maxWords], "") + "…"
	}
	return why
}

// secretAt is where keys, or Envoy's textual dumps (they begin with a random
// one of three markers), begin; -1 when there are none.
func secretAt(why string) int {
	loc := regexp.MustCompile(`-----BEGIN|goo\.gle/debug|debugproto|private_key|inline_(bytes|string)`).FindStringIndex(why)
	if loc == nil {
		return -1
	}
	return loc[0]
}
