// Package ledger is the account of who runs what: for every stream of every
// client of the control plane and every type, what it took last, whether it
// answers, in whose words it refused, and the last things that happened. Invariants: it is a record and decides
// nothing; streams that call themselves alike are told apart; all that comes
// from outside is cut, free of secrets and printable before it is kept.
package ledger

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"tollgate/api/contract"
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

// Overdue is how long an answer may take before it is a fault.
const Overdue = 5 * time.Second

const (
	rememberGone = time.Minute
	warmingAfter = time.Second
	maxRefusals  = 20
)

// Line is one row of the account.
type Line struct {
	Node     string    `json:"node"`
	Identity string    `json:"identity,omitempty"` // the authenticated name; none when nobody is authenticated
	Stream   int       `json:"stream,omitempty"`   // which of Streams, from 1
	Streams  int       `json:"streams,omitempty"`  // live ones of this client; left out when there is one
	Type     string    `json:"type"`
	Revision string    `json:"revision,omitempty"` // of the newest sources that it has taken as a whole
	State    State     `json:"state"`
	Since    time.Time `json:"since"`
	Refusals []Refusal `json:"refusals,omitempty"`
}

// Refusal is one resource with the client's words, cut and redacted.
type Refusal struct {
	Resource string `json:"resource"`      // empty: nobody knows which
	Pos      string `json:"pos,omitempty"` // file:line:col of what it was made from
	Why      string `json:"why"`
}

// Late says whether the line's client owes an answer for longer than Overdue.
func (l Line) Late(now time.Time) bool {
	return (l.State == Pending || l.State == Warming) && now.Sub(l.Since) > Overdue
}

// Ledger is safe for concurrent use. A nil one keeps nothing.
type Ledger struct {
	now func() time.Time

	mu       sync.Mutex
	accounts []*Account // in the order of their opening
}

// New returns an empty ledger; now is the clock.
func New(now func() time.Time) *Ledger { return &Ledger{now: now} }

// Account is that of one stream. A nil one keeps nothing.
type Account struct {
	ledger         *Ledger
	node, identity string
	gone           time.Time
	types          map[string]*entry
	events         ring
}

type entry struct {
	revision string
	oldest   time.Time // of what has no answer yet
	since    time.Time // the last time that it changed between refused and not, answered and not
	refusals map[string]Refusal
}

// Open notes a new stream of a node, and the authenticated name of its client;
// empty when there is none.
func (l *Ledger) Open(node, identity string) *Account {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	a := &Account{ledger: l, node: printable(node), identity: printable(identity), types: map[string]*entry{}}
	l.forget()
	l.accounts = append(l.accounts, a)
	return a
}

// Close notes the end of the stream.
func (a *Account) Close() {
	if a == nil {
		return
	}
	a.ledger.mu.Lock()
	defer a.ledger.mu.Unlock()
	a.gone = a.ledger.now()
	a.ledger.forget()
}

// forget drops what is gone for long, and what is gone of clients of whom
// something newer is known; the caller holds the lock.
func (l *Ledger) forget() {
	now, newer := l.now(), map[[2]string]bool{}
	kept := make([]*Account, 0, len(l.accounts))
	for _, a := range slices.Backward(l.accounts) {
		if !a.gone.IsZero() && (newer[a.client()] || now.Sub(a.gone) > rememberGone) {
			continue
		}
		newer[a.client()] = true
		kept = append(kept, a)
	}
	slices.Reverse(kept)
	l.accounts = kept
}

func (a *Account) client() [2]string { return [2]string{a.node, a.identity} }

// Settled notes resources of which the client has what it should have, or which
// are on their way anew, or which it should not have any more: what it said of
// them before is history.
func (a *Account) Settled(typeURL string, names []string) {
	if a == nil {
		return
	}
	a.ledger.mu.Lock()
	defer a.ledger.mu.Unlock()
	e := a.types[typeURL]
	if e == nil || len(e.refusals) == 0 {
		return
	}
	for _, name := range names {
		delete(e.refusals, printable(name))
	}
	delete(e.refusals, "")
	if len(e.refusals) == 0 {
		e.since = a.ledger.now()
	}
}

// Waits notes since when the client owes an answer; the zero time when it owes
// none.
func (a *Account) Waits(typeURL string, oldest time.Time) {
	if a == nil {
		return
	}
	a.ledger.mu.Lock()
	defer a.ledger.mu.Unlock()
	e := a.entry(typeURL)
	if !e.oldest.IsZero() && oldest.IsZero() && len(e.refusals) == 0 {
		e.since = a.ledger.now()
	}
	e.oldest = oldest
}

// Reached notes that the client has all that is in force of some sources.
func (a *Account) Reached(typeURL, revision string) {
	if a == nil {
		return
	}
	a.ledger.mu.Lock()
	defer a.ledger.mu.Unlock()
	a.entry(typeURL).revision = revision
}

// Refused notes which resources the client refused, in its words; none named
// means that nobody knows.
func (a *Account) Refused(typeURL, why string, which []Refusal) {
	if a == nil {
		return
	}
	a.ledger.mu.Lock()
	defer a.ledger.mu.Unlock()
	e := a.entry(typeURL)
	if len(which) == 0 {
		which = []Refusal{{}}
	}
	if len(e.refusals) == 0 {
		e.since = a.ledger.now()
	}
	why = redact(why)
	for _, r := range which {
		r.Resource, r.Pos, r.Why = printable(r.Resource), printable(r.Pos), why
		if _, again := e.refusals[r.Resource]; again || len(e.refusals) < maxRefusals {
			e.refusals[r.Resource] = r
		}
	}
}

func (a *Account) entry(typeURL string) *entry {
	e := a.types[typeURL]
	if e == nil {
		e = &entry{since: a.ledger.now(), refusals: map[string]Refusal{}}
		a.types[typeURL] = e
	}
	return e
}

// Lines returns the account, sorted by node, stream and type.
func (l *Ledger) Lines() []Line {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget()
	live := map[[2]string]int{}
	for _, a := range l.accounts {
		if a.gone.IsZero() {
			live[a.client()]++
		}
	}
	now, lines, seen := l.now(), []Line{}, map[[2]string]int{}
	for _, a := range l.accounts {
		if !a.gone.IsZero() && live[a.client()] > 0 {
			continue
		}
		seen[a.client()]++
		for typeURL, e := range a.types {
			line := Line{Node: a.node, Identity: a.identity, Type: short(typeURL), Revision: e.revision}
			if live[a.client()] > 1 {
				line.Stream, line.Streams = seen[a.client()], live[a.client()]
			}
			if line.State, line.Since = e.state(typeURL, now); !a.gone.IsZero() {
				line.State, line.Since = Gone, a.gone
			}
			for _, r := range e.refusals {
				line.Refusals = append(line.Refusals, r)
			}
			slices.SortFunc(line.Refusals, func(a, b Refusal) int { return cmp.Compare(a.Resource, b.Resource) })
			lines = append(lines, line)
		}
	}
	slices.SortFunc(lines, func(a, b Line) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Identity, b.Identity), cmp.Compare(a.Stream, b.Stream), cmp.Compare(a.Type, b.Type))
	})
	return lines
}

// Refusals are what the live streams of a node have refused, each once, as type
// and name; only the type where the node did not say which.
func (l *Ledger) Refusals(node string) []string {
	var all []string
	for _, line := range l.Lines() {
		if line.Node != printable(node) || line.State == Gone {
			continue
		}
		for _, r := range line.Refusals {
			what := line.Type
			if r.Resource != "" {
				what = fmt.Sprintf("%s %q", what, r.Resource)
			}
			all = append(all, what)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Faults are those of its lines now.
func (l *Ledger) Faults() []string { return Faults(l.Lines(), l.now()) }

// Faults are what an operator should look at, one a client and type: answers
// that are overdue, and refusals.
func Faults(lines []Line, now time.Time) []string {
	var faults []string
	for _, line := range lines {
		switch {
		case line.Late(now):
			faults = append(faults, fmt.Sprintf("%s has not answered for its %s since %s (%s)", line.Node, line.Type, line.Since.UTC().Format(time.RFC3339), line.State))
		case line.State == Refused:
			for _, r := range line.Refusals {
				at := ""
				if r.Pos != "" {
					at = r.Pos + ": "
				}
				faults = append(faults, fmt.Sprintf("%s%s refused %s %q and serves its last good one: %s", at, line.Node, line.Type, r.Resource, r.Why))
			}
		}
	}
	return faults
}

func (e *entry) state(typeURL string, now time.Time) (State, time.Time) {
	switch {
	case len(e.refusals) > 0:
		return Refused, e.since
	case e.oldest.IsZero():
		return Synced, e.since
	case typeURL == contract.TypeCluster && now.Sub(e.oldest) > warmingAfter:
		return Warming, e.oldest
	}
	return Pending, e.oldest
}

// short is the last word of a type URL, lower case: "cluster".
func short(typeURL string) string {
	return strings.ToLower(typeURL[strings.LastIndexByte(typeURL, '.')+1:])
}
