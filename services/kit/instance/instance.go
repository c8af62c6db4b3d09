// Package instance is the life of one service process: serve, register, and
// leave without failing a request. Invariant: nothing closes before the control
// planes and the health watchers have had a second to send traffic elsewhere.
package instance

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"tollgate/internal/otlp"
	"tollgate/services/kit/auth"
	"tollgate/services/kit/grpcx"
	"tollgate/services/kit/httpx"
	"tollgate/services/kit/red"
	"tollgate/services/kit/registry"
)

const (
	// grace is what requests get that run when the listeners close.
	grace = 4 * time.Second
	// flushTimeout bounds the sending of the last spans.
	flushTimeout = 300 * time.Millisecond
)

// Config is one instance of a service.
type Config struct {
	Service       string       // registered as this, and over gRPC as this + "-grpc"
	Instance      string       // unique within the service
	HTTP, GRPC    net.Listener // bound
	Zone          string
	Advertise     string                // host to register when the listeners are on all interfaces
	Audiences     []string              // of tokens that are meant for us
	JWKS          string                // file or URL
	Registry      []string              // admin addresses of the control planes
	RegistryToken string                // file
	RegistryTLS   *tls.Config           // nil: plain text
	Log           *slog.Logger          // carries component and node
	Metrics       prometheus.Registerer // nil: none are shared; one that can gather is served at /metrics
	Register      func(grpc.ServiceRegistrar)
}

// Instance is one assembled process. Add endpoints to Router before Run.
type Instance struct {
	Router  *httpx.Router
	Tracing *otlp.Tracing

	cfg      Config
	doors    []door
	registry *registry.Client
	verifier *auth.Verifier
}

type door interface {
	Run(ctx context.Context) error
	Drain()
}

// New assembles an instance.
func New(cfg Config) (*Instance, error) {
	if cfg.Instance == "" || cfg.HTTP == nil || cfg.GRPC == nil || cfg.Log == nil {
		return nil, fmt.Errorf("service %s: Instance, HTTP, GRPC and Log are required", cfg.Service)
	}
	if cfg.Metrics == nil {
		cfg.Metrics = prometheus.NewRegistry()
	}
	announce, err := announcer(cfg)
	if err != nil {
		return nil, err
	}
	verifier, err := auth.New(auth.Config{JWKS: cfg.JWKS, Audiences: cfg.Audiences, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	metrics, err := red.New(cfg.Metrics, cfg.Service)
	if err != nil {
		return nil, err
	}
	tracing, err := otlp.New(context.Background(), cfg.Service, cfg.Instance)
	if err != nil {
		return nil, err
	}
	router := httpx.NewRouter(httpx.Config{
		Service: cfg.Service, Instance: cfg.Instance, Auth: verifier, Metrics: metrics, Tracing: tracing, Log: cfg.Log,
	})
	if g, ok := cfg.Metrics.(prometheus.Gatherer); ok {
		exposition := promhttp.HandlerFor(g, promhttp.HandlerOpts{})
		router.Open("GET /metrics", func(w http.ResponseWriter, r *http.Request) error {
			exposition.ServeHTTP(w, r)
			return nil
		})
	}
	calls := grpcx.NewServer(grpcx.ServerConfig{
		Listener: cfg.GRPC, Instance: cfg.Instance, Auth: verifier, Metrics: metrics, Tracing: tracing,
		Log: cfg.Log, Grace: grace, Register: cfg.Register,
	})
	return &Instance{
		Router: router, Tracing: tracing, cfg: cfg, registry: announce, verifier: verifier,
		doors: []door{httpx.NewServer(cfg.HTTP, router, grace, cfg.Log), calls},
	}, nil
}

// Run serves and stays registered until ctx ends. Then: draining at every
// door and registry, a second for callers to notice, deregistered, closed,
// running requests finished.
func (i *Instance) Run(ctx context.Context) error {
	serving, closeDoors := context.WithCancel(context.WithoutCancel(ctx))
	defer closeDoors()
	doors, broken := errgroup.WithContext(serving)
	for _, d := range i.doors {
		doors.Go(func() error { return d.Run(broken) })
	}
	doors.Go(func() error { return i.verifier.Run(broken) })
	registered, leave := context.WithCancel(ctx)
	defer leave()
	left := make(chan error, 1)
	go func() { left <- i.registry.Run(registered) }()
	select {
	case <-ctx.Done():
		i.cfg.Log.Info("draining")
	case <-broken.Done(): // one door failed: the other must not live on alone
	}
	for _, d := range i.doors {
		d.Drain()
	}
	leave()
	err := <-left
	closeDoors()
	err = errors.Join(err, doors.Wait())
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	if lost := i.Tracing.Shutdown(flush); lost != nil {
		i.cfg.Log.Debug("spans not sent", "err", lost)
	}
	return err
}

func announcer(cfg Config) (*registry.Client, error) {
	web, err := advertised(cfg.HTTP, cfg.Advertise)
	if err != nil {
		return nil, err
	}
	calls, err := advertised(cfg.GRPC, cfg.Advertise)
	if err != nil {
		return nil, err
	}
	return registry.New(registry.Config{
		URLs: cfg.Registry, TokenFile: cfg.RegistryToken, TLS: cfg.RegistryTLS, Instance: cfg.Instance, Zone: cfg.Zone,
		Services: map[string]string{cfg.Service: web, cfg.Service + "-grpc": calls}, Log: cfg.Log,
	})
}

func advertised(l net.Listener, host string) (string, error) {
	bound, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return "", err
	}
	if host == "" {
		host = bound
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		return "", fmt.Errorf("listener %s: nobody can call this address: bind one interface, or say which host to advertise", l.Addr())
	}
	return net.JoinHostPort(host, port), nil
}
