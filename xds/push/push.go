// Package push moves every client from one release to the next: Envoys and our
// own servers by delta ADS, gRPC clients and the reference rate-limit server by
// a thin state-of-the-world adapter. Invariants: a resource is encoded once,
// whoever it goes to; policies and limit rules are taken before the routes that
// need them are sent; what a client refused it is never sent again unchanged;
// nothing is removed while a connected proxy's routes still name it.
package push

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"tollgate/api/contract"
	"tollgate/xds/ledger"
	"tollgate/xds/push/admission"
	"tollgate/xds/push/stream"
	"tollgate/xds/push/view"
	"tollgate/xds/push/wire"
	"tollgate/xds/release"
)

// Client is who a stream was admitted as.
type Client = admission.Client

// Admit decides who the client of a stream is.
type Admit = admission.Admit

// Config is what a server is made of. Zero durations take the defaults.
type Config struct {
	Log *slog.Logger
	// Callers is the log of clients that are turned away, which name themselves by
	// the attribute "address": it may be sampled. nil is Log.
	Callers *slog.Logger
	Metrics prometheus.Registerer
	Ledger  *ledger.Ledger // nil keeps no account
	// Admit says who a client is and what it may ask for. nil admits everybody to
	// everything, as nobody in particular.
	Admit Admit
	// Barrier is how long the servers of policies and limit rules may take to
	// accept a release before the proxies get theirs (1 s).
	Barrier time.Duration
	// Hold is how long a route waits for a cluster that is new to its proxy (2 s).
	Hold time.Duration
	// Drain is how long a cluster stays after the last route left it (2 s).
	Drain time.Duration
	// Retire is how long a policy or rule set stays after the last route left it,
	// and a scope with its routes after its listener did (60 s).
	Retire time.Duration
}

// Server is the control plane's side of xDS.
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	cfg      Config
	incoming chan *release.Release // the newest one that is not rolled out yet
	metrics  metrics
	site     *stream.Site
	stir     chan struct{} // a token in it: there may be something to sweep

	view atomic.Pointer[view.View] // written under mu

	mu      sync.Mutex
	streams map[*stream.Stream]struct{}
	idle    map[view.Key]time.Time // retiring resources that no proxy names any more
}

// New returns a server that has nothing to serve yet.
func New(cfg Config) (*Server, error) {
	for _, d := range []struct {
		to  *time.Duration
		def time.Duration
	}{{&cfg.Barrier, time.Second}, {&cfg.Hold, 2 * time.Second}, {&cfg.Drain, 2 * time.Second}, {&cfg.Retire, contract.RemovedAfter}} {
		if *d.to == 0 {
			*d.to = d.def
		}
	}
	s := &Server{
		cfg: cfg, incoming: make(chan *release.Release, 1), stir: make(chan struct{}, 1),
		streams: map[*stream.Stream]struct{}{}, idle: map[view.Key]time.Time{},
	}
	s.view.Store(view.New())
	s.site = &stream.Site{
		Desk:   admission.Desk{Admit: cfg.Admit, Log: cmp.Or(cfg.Callers, cfg.Log)},
		Ledger: cfg.Ledger, Log: cfg.Log, Hold: cfg.Hold, Drain: cfg.Drain, Retire: cfg.Retire, Current: s.view.Load,
	}
	var err error
	s.metrics, err = newMetrics(cfg.Metrics, &s.site.Frames)
	s.site.Metrics = stream.Metrics{Responses: s.metrics.responses, Answers: s.metrics.answers}
	return s, err
}

// Register adds the aggregated discovery service to a gRPC server, which must
// have been made with ServerOptions: they hold the codec of what is encoded once.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(r, s)
}

// ServerOptions are the transport settings that xDS needs: a stopped client is
// noticed, a node of 61 kB is nothing, pings of clients are welcome.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(wire.Codec{}),
		grpc.MaxRecvMsgSize(16 << 20),
		grpc.ReadBufferSize(4 << 10),
		grpc.WriteBufferSize(16 << 10),
		grpc.MaxConcurrentStreams(10_000),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	}
}

// Publish hands over a release; one that is not rolled out yet is replaced.
func (s *Server) Publish(r *release.Release) {
	for {
		select {
		case s.incoming <- r:
			return
		default:
		}
		select {
		case <-s.incoming:
		default:
		}
	}
}

// Run rolls releases out until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	every := min(s.cfg.Drain, 500*time.Millisecond)
	sweep := time.NewTimer(every)
	defer sweep.Stop()
	ticks := true // an idle server has no timer
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-s.incoming:
			s.roll(ctx, r)
		case <-s.stir:
			if !ticks {
				sweep.Reset(every)
				ticks = true
			}
		case now := <-sweep.C:
			if ticks = s.sweep(now); ticks {
				sweep.Reset(every)
			}
		}
	}
}

// roll moves everybody to a release: first who decides, then who carries.
func (s *Server) roll(ctx context.Context, r *release.Release) {
	start := time.Now()
	s.mu.Lock()
	now := s.view.Load()
	first := now.With(r, view.Deciding)
	changed := first != now
	s.set(first)
	s.mu.Unlock()
	if changed {
		s.barrier(ctx)
	}
	s.mu.Lock()
	s.set(s.view.Load().With(r, view.Everything))
	s.mu.Unlock()
	s.metrics.rolls.Observe(time.Since(start).Seconds())
}

// set replaces the view and wakes every stream; the caller holds the lock.
func (s *Server) set(v *view.View) {
	if v == s.view.Load() {
		return
	}
	s.view.Store(v)
	s.site.Interims.Serve(func(one *release.Resource) bool { return v.Get(one.Audience, one.Type, one.Name) == one })
	s.stirred()
	for st := range s.streams {
		st.Wake()
	}
}

// barrier waits until every connected server of policies and rules has taken
// the view, or its time is up; one that went away does not hold anybody up.
func (s *Server) barrier(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Barrier)
	defer cancel()
	for {
		late := s.late()
		if len(late) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			for _, st := range s.late() {
				st.Silence()
				s.cfg.Log.Warn("server has not taken its policies or rules in time, routes go out without it", "node", st.Node(), "dur", s.cfg.Barrier)
			}
			return
		case <-time.After(time.Millisecond):
		}
	}
}

func (s *Server) late() []*stream.Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	var late []*stream.Stream
	for st := range s.streams {
		if st.Decides() && !st.Settled(s.view.Load()) {
			late = append(late, st)
		}
	}
	return late
}

// stirred makes sure that a sweep comes.
func (s *Server) stirred() {
	select {
	case s.stir <- struct{}{}:
	default:
	}
}

// sweep drops what is retiring and has been named by nobody long enough. It
// returns whether there is anything left to look after.
func (s *Server) sweep(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.site.Left.Forget(now)
	busy := s.watch(now) || s.site.Left.Len() > 0
	serving := s.view.Load()
	if len(serving.Retiring) == 0 {
		clear(s.idle)
		return busy
	}
	used, known := s.used()
	var gone []view.Key
	for k := range serving.Retiring {
		if !known || used[k] {
			delete(s.idle, k)
			continue
		}
		since, waits := s.idle[k]
		if !waits {
			s.idle[k] = now
			continue
		}
		wait := s.cfg.Retire
		if k.URL == release.TypeCluster || k.URL == release.TypeEndpoint {
			wait = s.cfg.Drain
		}
		if now.Sub(since) >= wait {
			gone = append(gone, k)
			delete(s.idle, k)
		}
	}
	s.set(serving.Without(gone))
	return true
}

// watch makes answers show that are overdue, and returns whether any are owed;
// the caller holds the lock.
func (s *Server) watch(now time.Time) bool {
	busy := false
	count := map[string]int{}
	for st := range s.streams {
		st.Follow(now)
		owes, late, news := st.Overdue(now)
		busy = busy || owes
		for _, url := range late {
			count[url]++
		}
		for _, url := range news {
			s.cfg.Log.Warn("client does not answer", "node", st.Node(), "type_url", url, "dur", ledger.Overdue)
		}
	}
	for _, kind := range release.Kinds() {
		s.metrics.overdue.WithLabelValues(kind.URL).Set(float64(count[kind.URL]))
	}
	return busy
}

// Resend forgets what a node refused and sends it again, with all that it has
// not answered for; it returns to how many streams.
func (s *Server) Resend(node string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for st := range s.streams {
		if st.Node() == node {
			st.Again()
			n++
		}
	}
	return n
}

// used is what the routes of all clients name, those under way included; known
// is false when some client runs routes whose content is not known here. The
// caller holds the lock.
func (s *Server) used() (named map[view.Key]bool, known bool) {
	versions, known := map[string]*release.Resource{}, true
	for st := range s.streams {
		known = st.Uses(versions) && known
	}
	named = map[view.Key]bool{}
	for _, one := range versions {
		for _, ref := range one.Refs {
			named[view.Key{Section: view.Section{Audience: one.Audience, URL: ref.Type}, Name: ref.Name}] = true
			if ref.Type == release.TypeCluster {
				named[view.Key{Section: view.Section{Audience: one.Audience, URL: release.TypeEndpoint}, Name: ref.Name}] = true
			}
		}
	}
	return named, known
}

func (s *Server) join(st *stream.Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams[st] = struct{}{}
	s.metrics.streams.Set(float64(len(s.streams)))
}

func (s *Server) leave(st *stream.Stream) {
	client := st.Leave(time.Now())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stirred()
	delete(s.streams, st)
	s.metrics.streams.Set(float64(len(s.streams)))
	if client == "" {
		return
	}
	// One that came back before it was known to be gone has carried on already.
	for other := range s.streams {
		other.Inherit(client)
	}
}
