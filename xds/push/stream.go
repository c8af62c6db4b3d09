package push

import (
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"tollgate/xds/release"
)

// stream is one client of delta ADS: what it asked for, what it was sent, what
// it said. Its goroutine alone sends; the mutex lets the server ask about it.
type stream struct {
	srv    *Server
	wakeup chan struct{}

	mu       sync.Mutex
	id       string
	audience release.Audience
	opened   time.Time
	subs     map[string]*subscription
	nonce    uint64
	warming  map[string]time.Time         // clusters new to this client → when they were sent
	sent     map[string]*release.Resource // route configurations: the last sent
	running  map[string]*release.Resource // route configurations: the last taken
	blind    bool                         // it runs routes whose content is not known here
}

// subscription is what a client wants and has of one type.
type subscription struct {
	wildcard bool
	answered bool
	names    map[string]bool
	held     map[string]string            // name → version that it has, or was sent
	missing  map[string]bool              // asked for, and told that it is not there
	alone    map[string]bool              // was part of a refused batch: goes by itself
	pending  map[string]*batch            // by nonce
	good     map[string]*release.Resource // clusters: the last taken
	runs     map[string]bool              // clusters: some version was taken, so routes need not wait
	revert   map[string]*release.Resource // clusters: taken back because the next was refused
}

// batch is one response on its way.
type batch struct {
	resources []*release.Resource
	removed   []string
	again     map[string]string // what was held before, for when it is refused
}

// refusals are what a node refused, by type, name and version.
type refusals struct {
	at   time.Time
	what map[string]bool
}

func newStream(srv *Server) *stream {
	return &stream{
		srv: srv, wakeup: make(chan struct{}, 1), opened: time.Now(), audience: release.Edge,
		subs: map[string]*subscription{}, warming: map[string]time.Time{},
		sent: map[string]*release.Resource{}, running: map[string]*release.Resource{},
	}
}

func newSubscription() *subscription {
	return &subscription{
		names: map[string]bool{}, held: map[string]string{}, missing: map[string]bool{},
		alone: map[string]bool{}, pending: map[string]*batch{},
		good: map[string]*release.Resource{}, runs: map[string]bool{}, revert: map[string]*release.Resource{},
	}
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

// meet takes the node of the first message.
func (st *stream) meet(node *corev3.Node) {
	if st.id != "" || node == nil {
		return
	}
	st.id = node.GetId()
	st.audience = audienceOf(node)
	if st.srv.cfg.Ledger != nil {
		st.srv.cfg.Ledger.Connected(st.id)
	}
}

func audienceOf(node *corev3.Node) release.Audience {
	if node.GetCluster() == string(release.GRPC) {
		return release.GRPC
	}
	return release.Edge
}

// decides says whether the client is a server of policies or limit rules.
func (st *stream) decides() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	for url := range st.subs {
		if deciding(url) {
			return true
		}
	}
	return false
}

// settled says whether it has taken, or refused, all that v has for it.
func (st *stream) settled(v *view) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	for url, sub := range st.subs {
		if !deciding(url) {
			continue
		}
		if len(sub.pending) > 0 {
			return false
		}
		for name, one := range v.all(st.audience, url) {
			if (sub.wildcard || sub.names[name]) && sub.held[name] != one.Version && !st.refused(one) {
				return false
			}
		}
	}
	return true
}

// uses marks what the client's routes name, those under way included.
func (st *stream) uses(used map[string]bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	used[anything] = used[anything] || st.blind
	for _, routes := range []map[string]*release.Resource{st.sent, st.running} {
		for _, one := range routes {
			for _, m := range st.srv.refs.of(one) {
				used[m] = true
			}
		}
	}
}

// anything is the mention of a client whose routes are not known.
const anything = "*"

func (st *stream) refused(one *release.Resource) bool {
	return st.srv.wasRefused(st.id, one)
}

func refusal(one *release.Resource) string { return one.Type + " " + one.Name + " " + one.Version }

func (s *Server) wasRefused(node string, one *release.Resource) bool {
	s.refusedMu.Lock()
	defer s.refusedMu.Unlock()
	return s.refused[node].what[refusal(one)]
}

// refuse remembers what a node refused, also beyond its connection.
func (s *Server) refuse(node string, one *release.Resource) {
	s.refusedMu.Lock()
	defer s.refusedMu.Unlock()
	r := s.refused[node]
	if r.what == nil {
		r.what = map[string]bool{}
	}
	r.at = time.Now()
	r.what[refusal(one)] = true
	s.refused[node] = r
}

// forget drops what nodes refused that have been gone for long; the caller
// holds the server's lock.
func (s *Server) forget(now time.Time) {
	connected := map[string]bool{}
	for st := range s.streams {
		connected[st.node()] = true
	}
	s.refusedMu.Lock()
	defer s.refusedMu.Unlock()
	for node, r := range s.refused {
		if !connected[node] && now.Sub(r.at) > rememberFor {
			delete(s.refused, node)
		}
	}
}

// rememberFor is how long a refusal outlives its node's connection.
const rememberFor = 10 * time.Minute
