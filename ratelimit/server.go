// Package ratelimit is the rate-limit server: it takes its rules from the
// control plane, answers Envoy, and counts in memory or in Redis. Invariant:
// it is ready once it has a complete set of rules, and from then on always
// answers by the last set that was good.
package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"tollgate/internal/adsclient"
	"tollgate/internal/grpcserve"
	"tollgate/ratelimit/rls"
	"tollgate/ratelimit/store"
)

// NodeCluster is how a limiter names itself to the control plane.
const NodeCluster = "tollgate-ratelimit"

// stopGrace is how long requests under way may take when the server stops.
const stopGrace = 4 * time.Second

// maxRequest bounds a request's bytes: 24 descriptors are about 600.
const maxRequest = 1 << 20

// Config is what a server is made of.
type Config struct {
	Listener       net.Listener
	XDSServers     []string // host:port, tried in turn
	NodeID         string
	RedisURL       string // "" counts in memory
	Log            *slog.Logger
	Metrics        prometheus.Registerer
	ServerOptions  []grpc.ServerOption
	XDSDialOptions []grpc.DialOption
}

// Server is a rate-limit server.
type Server struct {
	cfg    Config
	grpc   *grpc.Server
	health *health.Server
	rules  *rules
	client *adsclient.Client
	memory *store.Memory
	redis  *store.Redis // nil: none; then shared is nil too
	shared *store.Failover
}

// New returns a server on a bound listener. It does not need Redis or the
// control plane to be up.
func New(cfg Config) (*Server, error) {
	cfg.Log = cfg.Log.With("component", "ratelimit")
	s := &Server{cfg: cfg, memory: store.NewMemory(0), health: health.NewServer()}
	m, err := newMetrics(cfg.Metrics, s.memory.Len)
	if err != nil {
		return nil, fmt.Errorf("rate limit: metrics: %w", err)
	}
	var counters rls.Store = s.memory
	if cfg.RedisURL != "" {
		if s.redis, err = store.NewRedis(store.RedisConfig{URL: cfg.RedisURL, Log: cfg.Log}); err != nil {
			return nil, err
		}
		s.shared = store.NewFailover(store.FailoverConfig{Primary: s.redis, Local: s.memory, Log: cfg.Log, Degraded: m.setDegraded})
		if err := watchStore(cfg.Metrics, s.shared); err != nil {
			return nil, fmt.Errorf("rate limit: metrics: %w", err)
		}
		counters = s.shared
	}
	service := rls.New(counters, m, time.Now)
	s.rules = newRules(service.SetTable, m, cfg.Log)
	s.client, err = adsclient.New(adsclient.Config{
		Servers: cfg.XDSServers, NodeID: cfg.NodeID, NodeCluster: NodeCluster, Types: []string{TypeRuleSet},
		Apply: s.apply, Log: cfg.Log, DialOptions: cfg.XDSDialOptions,
	})
	if err != nil {
		return nil, fmt.Errorf("rate limit: %w", err)
	}
	options := append([]grpc.ServerOption{
		grpc.ChainUnaryInterceptor(m.observe),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.WaitForHandlers(true),
		// Envoy may be told to ping its idle connections.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	}, cfg.ServerOptions...)
	s.grpc = grpc.NewServer(options...)
	rlsv3.RegisterRateLimitServiceServer(s.grpc, service)
	healthv1.RegisterHealthServer(s.grpc, s.health)
	s.setHealth(healthv1.HealthCheckResponse_NOT_SERVING)
	return s, nil
}

// Ready returns nil once a complete set of rules is in use.
func (s *Server) Ready() error { return s.rules.ready() }

// Faults returns what an operator should mend while the server serves on.
func (s *Server) Faults() []string {
	var faults []string
	if err := s.rules.refusal(); err != nil {
		faults = append(faults, "the last limit rules were refused: "+err.Error())
	}
	if s.shared != nil && s.shared.Degraded() {
		faults = append(faults, "the Redis of --redis-url does not answer: every limit does what its on_error says")
	}
	return faults
}

// Run serves until ctx ends, lets requests under way finish, and returns nil.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.client.Run(ctx) })
	group.Go(func() error { return s.memory.Run(ctx) })
	group.Go(func() error { return s.rules.run(ctx) })
	if s.shared != nil {
		group.Go(func() error { return s.shared.Run(ctx) })
	}
	group.Go(func() error {
		return grpcserve.Run(ctx, grpcserve.Config{Name: "rate limit", Listener: s.cfg.Listener, Server: s.grpc, Health: s.health, Grace: stopGrace})
	})
	err := group.Wait()
	if s.redis != nil {
		err = errors.Join(err, s.redis.Close())
	}
	return err
}

func (s *Server) apply(u adsclient.Update) error {
	if err := s.rules.apply(time.Now(), u); err != nil {
		return err
	}
	s.setHealth(healthv1.HealthCheckResponse_SERVING)
	return nil
}

// setHealth has no effect once the server is stopping.
func (s *Server) setHealth(status healthv1.HealthCheckResponse_ServingStatus) {
	s.health.SetServingStatus("", status)
	s.health.SetServingStatus(rlsv3.RateLimitService_ServiceDesc.ServiceName, status)
}
