// Package agent stands between one proxy and its control planes, on the proxy's
// machine: it hands on what both say, keeps on disk what the proxy accepted, and
// serves that when no control plane answers, so that a proxy that starts then
// serves its last good configuration. Invariants: nothing is kept that the proxy
// did not accept; nothing kept is served while a control plane answers, and a
// refusal of the proxy ends it, on disk too; what is on disk is whole or is not used; what is kept of
// one node is never served to another.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tollgate/xds/push"
)

// Config is what an agent is made of.
type Config struct {
	Listener      net.Listener // where the proxy asks
	ServerOptions []grpc.ServerOption
	Servers       []string          // control planes, tried in turn
	DialOptions   []grpc.DialOption // how they are met
	Dir           string            // where what was accepted is kept, for us alone
	Metrics       prometheus.Registerer
	Log           *slog.Logger
	// Silence is how long a control plane may keep a proxy that holds nothing
	// waiting for its first word before another is asked (3 s).
	Silence time.Duration
	// NodeID is who the proxy is to the control planes, whatever it calls itself:
	// the name of its certificate. Empty: what it says.
	NodeID string
}

// Agent serves one proxy.
type Agent struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	cfg      Config
	server   *grpc.Server
	kept     *kept
	upstream *upstream
	gauge    prometheus.Gauge

	mu       sync.Mutex
	alive    context.Context // of Run; nil before
	fallback *fallback       // nil while a control plane answers
	trouble  error           // why the proxy is served nothing; nil: it is served
	running  sync.WaitGroup
}

// New reads what is kept. Damage is logged and costs what is kept, no more.
func New(cfg Config) (*Agent, error) {
	if cfg.Silence == 0 {
		cfg.Silence = 3 * time.Second
	}
	a := &Agent{
		cfg: cfg, kept: newKept(cfg.Dir),
		gauge: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tollgate_agent_fallback", Help: "1 while no control plane answers and the proxy is served what it last accepted.",
		}),
	}
	if err := a.kept.load(); err != nil {
		cfg.Log.Error("what the proxy last accepted cannot be used, it is kept anew", "err", err)
	}
	var err error
	if a.upstream, err = newUpstream(cfg.Servers, cfg.DialOptions); err != nil {
		return nil, err
	}
	a.server = grpc.NewServer(append(push.ServerOptions(), cfg.ServerOptions...)...)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(a.server, a)
	return a, cfg.Metrics.Register(a.gauge)
}

// Run serves until ctx ends.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.mu.Lock()
	a.alive = ctx
	a.mu.Unlock()
	saved := make(chan struct{})
	go func() {
		defer close(saved)
		a.kept.keep(ctx, a.cfg.Log)
	}()
	stop := context.AfterFunc(ctx, a.server.Stop)
	defer stop()
	err := a.server.Serve(a.cfg.Listener)
	cancel()
	a.server.Stop() // waits for the streams
	a.running.Wait()
	<-saved
	return errors.Join(err, a.upstream.close())
}

// Faults are what an operator should mend.
func (a *Agent) Faults() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var faults []string
	if a.fallback != nil {
		faults = append(faults, fmt.Sprintf("no control plane answers: the proxy is served what it accepted until %s", a.fallback.since.Format(time.RFC3339)))
	}
	if a.trouble != nil {
		faults = append(faults, a.trouble.Error())
	}
	if err := a.kept.fault(); err != nil {
		faults = append(faults, err.Error())
	}
	return faults
}

// DeltaAggregatedResources serves the proxy until it, or who it speaks with,
// leaves. The proxy comes back at once and keeps what it has meanwhile.
func (a *Agent) DeltaAggregatedResources(down discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	first, err := down.Recv()
	if err != nil {
		return err
	}
	if a.cfg.NodeID != "" {
		if first.Node == nil {
			first.Node = &corev3.Node{}
		}
		first.Node.Id = a.cfg.NodeID
	}
	if a.falling() {
		return a.fall(down, first)
	}
	at := a.upstream.next(down.Context(), time.Now())
	if at == nil {
		return a.fall(down, first)
	}
	heard, err := newRelay(a.kept, down, first, a.cfg.Silence, func() { a.say(nil) }).run(at)
	switch {
	case down.Context().Err() != nil:
		return down.Context().Err()
	case status.Code(err) == codes.PermissionDenied, status.Code(err) == codes.Unauthenticated:
		a.kept.forget()
		a.say(fmt.Errorf("the control plane %s refuses the proxy: %s", at.name, status.Convert(err).Message()))
		a.cfg.Log.Error("the control plane refuses the proxy, what it accepted is forgotten", "resource", at.name, "err", err)
		return err
	case heard:
		at.well()
	default:
		at.ill(time.Now())
	}
	a.cfg.Log.Warn("control plane lost", "resource", at.name, "err", err)
	return status.Error(codes.Unavailable, "the control plane was lost, another will be asked")
}

// say keeps for Faults why the proxy is served nothing.
func (a *Agent) say(trouble error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.trouble = trouble
}

func (a *Agent) falling() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.fallback != nil
}

// fall serves what is kept, from now until a control plane answers.
func (a *Agent) fall(down discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer, first *discoveryv3.DeltaDiscoveryRequest) error {
	f, err := a.begin(first.GetNode().GetId())
	if err != nil {
		a.say(err)
		return status.Error(codes.Unavailable, err.Error())
	}
	a.say(nil)
	return f.serve(&replay{down, first})
}

// begin starts a fallback, or joins the one that runs.
func (a *Agent) begin(node string) (*fallback, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fallback != nil && a.fallback.node == node {
		return a.fallback, nil
	}
	if a.alive == nil || a.alive.Err() != nil {
		return nil, errors.New("the agent is stopping")
	}
	resources, since := a.kept.of(node)
	if len(resources) == 0 || a.fallback != nil {
		return nil, errors.New("no control plane answers, and nothing is kept that this proxy accepted")
	}
	f, err := newFallback(node, resources, since, a.cfg.Log)
	if err != nil {
		return nil, fmt.Errorf("no control plane answers, and what is kept cannot be served: %w", err)
	}
	a.fallback = f
	a.gauge.Set(1)
	a.cfg.Log.Error("no control plane answers: the proxy is served what it last accepted", "node", node, "resources", len(resources), "since", since)
	ctx, cancel := context.WithCancel(a.alive)
	a.running.Go(func() { f.run(ctx) })
	a.running.Go(func() {
		defer cancel()
		a.upstream.await(ctx)
		a.mu.Lock()
		a.fallback = nil
		a.mu.Unlock()
		a.gauge.Set(0)
		if ctx.Err() == nil {
			a.cfg.Log.Info("a control plane answers again")
		}
		f.end()
	})
	return f, nil
}
