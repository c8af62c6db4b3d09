// Package extauthz is the authorization server: it takes policies and identity
// from the control plane like any xDS client and answers Envoy's checks from
// memory. Invariant: without a complete set of config it answers 503, and a
// refused update leaves the one in force untouched.
package extauthz

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"tollgate/extauthz/check"
	"tollgate/extauthz/credential"
	"tollgate/internal/adsclient"
	"tollgate/internal/celenv"
	"tollgate/internal/grpcserve"
	"tollgate/internal/identity"
	"tollgate/internal/jwks"
)

const (
	stopGrace   = 4 * time.Second
	expireEvery = time.Second
)

// Config is what an authorization server is made of.
type Config struct {
	Listener       net.Listener
	XDSServers     []string
	NodeID         string
	IdentityKey    ed25519.PrivateKey
	KeysPath       string            // "": the store that the Identity resource names
	KeysBase       string            // what that store is relative to
	ExtraKeys      []credential.Key  // beside the key file, in memory
	ExtraJWKS      map[string][]byte // issuer name to a JWKS beside its own, in memory
	Log            *slog.Logger
	Metrics        prometheus.Registerer
	ServerOptions  []grpc.ServerOption
	XDSDialOptions []grpc.DialOption
}

// Server is one authorization server.
type Server struct {
	cfg       Config
	log       *slog.Logger
	metrics   *metrics
	extraKeys map[string]credential.StaticKeys
	transport http.RoundTripper
	checks    *check.Server
	bulkhead  *credential.Bulkhead
	state     *state
	keyFile   *keyFollower
	client    *adsclient.Client
	ready     atomic.Bool
	becameOK  chan struct{}
	once      sync.Once

	// What the config starts and stops while we run.
	life context.Context //nolint:containedctx // the lifetime of Run, for goroutines that an update starts
	jobs sync.WaitGroup
}

// keyFollower hands the path from an update to the goroutine that reads it, so
// that reading a file never happens under the lock of the state.
type keyFollower struct {
	file *credential.KeyFile
	path chan string
}

func (k *keyFollower) follow(path string) {
	select {
	case <-k.path: // an older wish that nobody took yet
	default:
	}
	k.path <- path
}

// New returns a server that listens but serves only in Run.
func New(cfg Config) (*Server, error) {
	if cfg.Listener == nil {
		return nil, errors.New("extauthz: no listener")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	signer, err := identity.NewSigner(cfg.IdentityKey)
	if err != nil {
		return nil, fmt.Errorf("extauthz: %w", err)
	}
	s := &Server{
		cfg: cfg, log: cfg.Log, extraKeys: map[string]credential.StaticKeys{}, becameOK: make(chan struct{}),
		// One core is for those who have shown their token before.
		bulkhead: credential.NewBulkhead(max(1, runtime.GOMAXPROCS(0)-1)),
		// One connection serves the fetches that tokens of unknown keys ask for.
		transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 5 * time.Second, MaxIdleConnsPerHost: 1, IdleConnTimeout: 2 * time.Second,
		},
	}
	for name, document := range cfg.ExtraJWKS {
		set, err := jwks.Parse(document)
		if err != nil {
			return nil, fmt.Errorf("extauthz: extra keys of issuer %s: %w", name, err)
		}
		s.extraKeys[name] = credential.StaticKeys(set)
	}
	if s.metrics, err = newMetrics(cfg.Metrics); err != nil {
		return nil, fmt.Errorf("extauthz: metrics: %w", err)
	}
	env, err := celenv.New()
	if err != nil {
		return nil, fmt.Errorf("extauthz: %w", err)
	}
	s.checks = check.New(signer, cfg.Log, s.metrics)
	s.state = &state{server: s, env: env, policies: map[string]*entry{}, remotes: map[string]*remote{}, refused: map[string]string{}}
	s.keyFile = &keyFollower{path: make(chan string, 1), file: credential.NewKeyFile(cfg.Log, s.state.useKeys, s.state.keysBad)}
	s.client, err = adsclient.New(adsclient.Config{
		Servers: cfg.XDSServers, NodeID: cfg.NodeID, NodeCluster: "tollgate-extauthz",
		Types: []string{TypeIdentity, TypePolicy}, Apply: s.state.apply,
		Log: cfg.Log, DialOptions: cfg.XDSDialOptions,
	})
	if err != nil {
		return nil, fmt.Errorf("extauthz: %w", err)
	}
	return s, nil
}

// Ready is nil once a first complete set of config is in force.
func (s *Server) Ready() error {
	if !s.ready.Load() {
		return errors.New("extauthz: no config yet: is the control plane reachable at --xds-servers?")
	}
	return nil
}

func (s *Server) becomeReady() {
	s.ready.Store(true)
	s.once.Do(func() { close(s.becameOK) })
}

// untilReady sends Envoy to another server while this one has nothing to decide
// by: a lost server is asked elsewhere, a 503 of a living one is an answer.
func (s *Server) untilReady(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if !s.ready.Load() && info.FullMethod == authv3.Authorization_Check_FullMethodName {
		return nil, status.Error(codes.Unavailable, "no policies yet")
	}
	return next(ctx, request)
}

// Run serves until ctx ends; then it takes no new calls, finishes those it has
// within 4 s and returns nil.
func (s *Server) Run(ctx context.Context) error {
	group, running := errgroup.WithContext(ctx)
	s.life = running
	server := grpc.NewServer(append([]grpc.ServerOption{
		grpc.MaxConcurrentStreams(4096),
		grpc.MaxRecvMsgSize(1 << 20),
		grpc.ChainUnaryInterceptor(s.untilReady),
	}, s.cfg.ServerOptions...)...)
	authv3.RegisterAuthorizationServer(server, s.checks)
	serving := health.NewServer()
	serving.SetServingStatus("", healthv1.HealthCheckResponse_NOT_SERVING)
	healthv1.RegisterHealthServer(server, serving)
	group.Go(func() error { return s.client.Run(running) })
	group.Go(func() error { return s.followKeys(running) })
	group.Go(func() error { return s.housekeeping(running, serving) })
	group.Go(func() error {
		return grpcserve.Run(running, grpcserve.Config{Name: "extauthz", Listener: s.cfg.Listener, Server: server, Health: serving, Grace: stopGrace})
	})
	err := group.Wait()
	s.jobs.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (s *Server) housekeeping(ctx context.Context, serving *health.Server) error {
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	ok := s.becameOK
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ok:
			serving.SetServingStatus("", healthv1.HealthCheckResponse_SERVING)
			ok = nil
		case now := <-tick.C:
			s.state.expire(now)
		}
	}
}

func (s *Server) followKeys(ctx context.Context) error {
	s.jobs.Go(func() { _ = s.keyFile.file.Run(ctx) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case path := <-s.keyFile.path:
			s.keyFile.file.Follow(path)
		}
	}
}

// background runs a job until the server stops or the job is stopped.
func (s *Server) background(job func(context.Context) error) context.CancelFunc {
	ctx, cancel := context.WithCancel(s.life)
	s.jobs.Go(func() {
		defer cancel()
		_ = job(ctx) // jobs end with their context only
	})
	return cancel
}
