// Package stream is one client of the push engine: what it asked for, what it was
// sent, what it said, and from that what to send it next. Invariants: what a
// client refused it is never sent again unchanged by the same stream; what it did
// not answer, or answered before it asked, it is not held to have; who is named
// goes before who names it.
package stream

import (
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate/xds/ledger"
	"tollgate/xds/push/admission"
	"tollgate/xds/push/due"
	"tollgate/xds/push/flight"
	"tollgate/xds/push/refusals"
	"tollgate/xds/push/routes"
	"tollgate/xds/push/slot"
	"tollgate/xds/push/trial"
	"tollgate/xds/push/view"
	"tollgate/xds/push/warming"
	"tollgate/xds/push/wire"
	"tollgate/xds/release"
)

// Site is what the streams of one server share. All of it is set before the
// first of them.
type Site struct {
	Desk    admission.Desk
	Ledger  *ledger.Ledger
	Log     *slog.Logger
	Hold    time.Duration // how long a route waits for a cluster that is new to its proxy
	Drain   time.Duration // how long a cluster stays after the last route left it
	Retire  time.Duration // how long a policy or rule set does
	Metrics Metrics
	Current func() *view.View // what is served now; it never goes back
	Frames  wire.Frames
	// Interims are the forms in which route configurations wait.
	Interims routes.Interims
	Left     refusals.Archive // what clients refused that left and may carry on
}

// Metrics count responses by type, and answers by type and word.
type Metrics struct{ Responses, Answers *prometheus.CounterVec }

// Stream is one client of delta ADS: what it asked for, what it was sent, what
// it said. One goroutine sends and one reads; the mutex is between them, and lets
// the server ask.
type Stream struct {
	site   *Site
	Wakeup chan struct{} // a token in it: there may be something to send
	opened time.Time

	mu       sync.Mutex
	gone     bool
	id       string // of the node that it says to be
	client   admission.Client
	account  *ledger.Account
	record   refusals.Record
	resumed  bool // it brought versions, so it is no fresh process
	mute     bool // it let a barrier pass without an answer
	audience release.Audience
	subs     map[string]*subscription
	whole    map[string]*wholeType // of a client of state-of-the-world ADS
	nonce    uint64
	planned  uint64           // the view that was last compared
	warming  warming.Clusters // that are new to this client
	routes   routes.Account
	waiting  set // route configurations that wait for some of these clusters
}

// set is of names; a nil one is empty, and adding makes it.
type set map[string]struct{}

func (s *set) add(name string) {
	if *s == nil {
		*s = set{}
	}
	(*s)[name] = struct{}{}
}

func (s set) has(name string) bool {
	_, found := s[name]
	return found
}

// subscription is what a client wants and has of one type.
type subscription struct {
	release.Kind
	met      bool // a request came, so that the next is no first one
	wildcard bool
	answered bool
	asked    int // names
	slots    slot.Table
	stale    set // it came with it, and it is not served any more
	refusing set // what is in force and was refused

	flight  flight.Flight // responses without an answer
	probe   bool          // an empty response is to show whether what went unasked was taken
	trial   trial.Trial   // of what was refused together
	trying  string        // the nonce of the group on trial
	late    bool          // an answer is overdue, and that was said
	reached uint64        // the view of which it has all
	owed    time.Time     // since when it owes an answer, as the account knows it

	todo  due.Names // names to compare with the view
	queue []string  // of which these wait for their turn, sorted
	// clusters were sent, and their endpoints, if this is their type, follow.
	clusters [][]*release.Resource
	rescan   bool // compare all of them
}

// New returns the stream of a client of which nothing is known yet.
func New(site *Site) *Stream {
	return &Stream{
		site: site, Wakeup: make(chan struct{}, 1), opened: time.Now(), audience: release.Edge, subs: map[string]*subscription{},
	}
}

// subscription returns what the client wants and has of a type that is served.
func (st *Stream) subscription(kind release.Kind) *subscription {
	sub := st.subs[kind.URL]
	if sub == nil {
		sub = &subscription{Kind: kind}
		st.subs[kind.URL] = sub
	}
	return sub
}

// lost forgets what the client has of a name.
func (sub *subscription) lost(name string) {
	sub.slots.Change(name).Lose()
	sub.slots.Settle(name)
	delete(sub.stale, name)
}

// Wake makes it look again.
func (st *Stream) Wake() {
	select {
	case st.Wakeup <- struct{}{}:
	default:
	}
}

// Node is the id that it says to have; empty before it said one.
func (st *Stream) Node() string {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.id
}

// Decides says whether the client is a server of policies or limit rules.
func (st *Stream) Decides() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, sub := range st.subs {
		if sub.Deciding {
			return true
		}
	}
	return false
}

// Settled says whether it has taken, or refused, all that v has for it, or is
// not worth waiting for.
func (st *Stream) Settled(v *view.View) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.mute {
		return true
	}
	for _, sub := range st.subs {
		if sub.Deciding && (sub.flight.Len() > 0 || len(sub.queue) > 0 || sub.todo.Any() || !sub.trial.Over()) {
			return false
		}
	}
	return st.planned >= v.Number
}

// Silence notes that it let a barrier pass: the next does not wait for it until
// it has answered again.
func (st *Stream) Silence() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.mute = true
}

// Uses marks the route configurations that the client runs or is sent, by
// version; it returns false when it runs some that are not known here.
func (st *Stream) Uses(versions map[string]*release.Resource) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.routes.Uses(versions)
}

// Again forgets what the client refused and sends it once more, with all that
// it has not answered for.
func (st *Stream) Again() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.record.Forget()
	for _, sub := range st.subs {
		if !sub.Withheld {
			st.dropped(sub, sub.flight.Trim(0), nil)
		}
		sub.trial, sub.trying, sub.rescan = trial.Trial{}, "", true
		for name := range sub.slots.Own() {
			s := sub.slots.Change(name)
			s.Parked, s.Words = false, ""
			sub.slots.Settle(name)
		}
	}
	st.Wake()
}

// Leave ends the stream's part in everything. It returns under which name its
// record is kept; empty when it is not.
func (st *Stream) Leave(now time.Time) string {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.gone = true
	for _, sub := range st.subs {
		for _, b := range sub.flight.All() {
			for _, one := range b.Resources {
				if len(b.Resources) > 1 {
					st.record.Doubt(one) // an answer may have been lost with the stream
				}
			}
		}
	}
	st.account.Close()
	if st.client.Identity == "" {
		return ""
	}
	st.site.Left.Keep(st.remembered(), st.record, now)
	return st.remembered()
}

// Inherit takes from an earlier stream of the same client, which has ended only
// now, what is doubtful, and nothing else: it may have been another process.
func (st *Stream) Inherit(client string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.resumed || st.client.Identity == "" || st.remembered() != client {
		return
	}
	earlier := st.site.Left.Take(client, time.Now())
	for url, sub := range st.subs {
		for _, name := range earlier.Doubts(url) {
			sub.doubt(name)
		}
	}
	st.Wake()
}

// carryOn takes up what the client refused on its stream before, when it shows
// that it is still the same process.
func (st *Stream) carryOn() {
	if st.resumed {
		return
	}
	st.resumed = true
	if st.client.Identity != "" {
		st.record = st.site.Left.Take(st.remembered(), time.Now())
	}
	for url, sub := range st.subs {
		sub.doubtful(st.record.Doubts(url))
	}
}

// remembered is the client as what it refused is kept under.
func (st *Stream) remembered() string { return st.client.Identity + "\n" + st.id }

func (st *Stream) nextNonce() string {
	st.nonce++
	return strconv.FormatUint(st.nonce, 36)
}
