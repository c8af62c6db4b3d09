package push

import (
	"context"
	"sync"
	"time"

	"tollgate/xds/push/routes"
	"tollgate/xds/push/view"
	"tollgate/xds/release"
)

// stream is one client of delta ADS: what it asked for, what it was sent, what
// it said. Its goroutine alone sends; the mutex lets the server ask about it.
type stream struct {
	srv    *Server
	wakeup chan struct{}
	opened time.Time

	mu         sync.Mutex
	id         string // of the node that it says to be
	client     Client
	remembered string // the name under which its refusals are kept
	audience   release.Audience
	subs       map[string]*subscription
	nonce      uint64
	planned    uint64                       // the view that was last compared
	warming    map[string]time.Time         // clusters new to this client → when they were sent
	longest    time.Time                    // no cluster is warming since before
	waiting    map[string]bool              // route configurations that wait for some of them
	thawed     bool                         // some of them need not be waited for any more
	interims   routes.Interims              // the form in which a route configuration waits
	sent       map[string]*release.Resource // route configurations: the last sent
	running    map[string]*release.Resource // route configurations: the last taken
	left       time.Time                    // when routes were last taken
	blind      map[string]bool              // route configurations that it runs and whose content is not known here
}

// subscription is what a client wants and has of one type.
type subscription struct {
	met      bool // a request came, so that the next is no first one
	wildcard bool
	answered bool
	names    map[string]bool
	held     map[string]string            // name → version that it has, or was sent
	claimed  map[string]bool              // it says that it has it; not compared yet
	stale    map[string]bool              // it came with it, and it is not served any more
	missing  map[string]bool              // asked for, and told that it is not there
	alone    map[string]bool              // was part of a refused batch: goes by itself
	pending  map[string]*batch            // by nonce
	good     map[string]*release.Resource // clusters: the last taken
	runs     map[string]bool              // clusters: some version was taken, so routes need not wait
	revert   map[string]*release.Resource // clusters: taken back because the next was refused

	todo   map[string]bool // names to compare with the view
	rescan bool            // compare all of them
}

// batch is one response on its way.
type batch struct {
	resources []*release.Resource
	removed   []string
	again     map[string]string // what was held before, for when it is refused
}

func newStream(srv *Server) *stream {
	return &stream{
		srv: srv, wakeup: make(chan struct{}, 1), opened: time.Now(), audience: release.Edge,
		subs: map[string]*subscription{}, warming: map[string]time.Time{}, waiting: map[string]bool{}, interims: routes.Interims{},
		sent: map[string]*release.Resource{}, running: map[string]*release.Resource{}, blind: map[string]bool{},
	}
}

func newSubscription() *subscription {
	return &subscription{
		names: map[string]bool{}, held: map[string]string{}, claimed: map[string]bool{}, stale: map[string]bool{},
		missing: map[string]bool{}, alone: map[string]bool{}, pending: map[string]*batch{},
		good: map[string]*release.Resource{}, runs: map[string]bool{}, revert: map[string]*release.Resource{}, todo: map[string]bool{},
	}
}

// lost forgets what the client has of a name.
func (sub *subscription) lost(name string) {
	delete(sub.held, name)
	delete(sub.claimed, name)
	delete(sub.stale, name)
	delete(sub.runs, name)
	delete(sub.good, name)
}

// receive hands on what a client says until it leaves.
func receive[T any](ctx context.Context, recv func() (T, error)) (<-chan T, <-chan struct{}) {
	requests, ended := make(chan T), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			request, err := recv()
			if err != nil {
				return
			}
			select {
			case requests <- request:
			case <-ctx.Done():
				return
			}
		}
	}()
	return requests, ended
}

func (st *stream) wake() {
	select {
	case st.wakeup <- struct{}{}:
	default:
	}
}

func (st *stream) node() string {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.id
}

func (st *stream) memory() string {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.remembered
}

// decides says whether the client is a server of policies or limit rules.
func (st *stream) decides() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	for url := range st.subs {
		if view.Deciding(url) {
			return true
		}
	}
	return false
}

// settled says whether it has taken, or refused, all that v has for it.
func (st *stream) settled(v *view.View) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	for url, sub := range st.subs {
		if view.Deciding(url) && len(sub.pending) > 0 {
			return false
		}
	}
	return st.planned >= v.Number
}

// uses marks the route configurations that the client runs or is sent, by
// version; it returns false when it runs some that are not known here.
func (st *stream) uses(versions map[string]*release.Resource) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, configs := range []map[string]*release.Resource{st.sent, st.running} {
		for _, one := range configs {
			versions[one.Version] = one
		}
	}
	return len(st.blind) == 0
}

func (st *stream) refused(one *release.Resource) bool {
	return st.srv.refused.Has(st.remembered, one)
}
