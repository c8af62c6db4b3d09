package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Readiness says whether a process may be sent traffic. An error means no;
// faults are what an operator should mend while it serves on.
type Readiness func() (faults []string, err error)

// AdminConfig is what an admin address serves.
type AdminConfig struct {
	Listener  net.Listener
	Readiness Readiness
	Metrics   *prometheus.Registry
	Token     string                  // bearer token of Routes; "": nobody has it
	Hosts     []string                // names by which we are asked, beside our address, localhost and the machine's name
	Routes    map[string]http.Handler // extra patterns, as for http.ServeMux, for who has the token
	Open      map[string]http.Handler // extra patterns for everybody
	Own       map[string]http.Handler // extra patterns that ask for credentials of their own, by whatever name we are called
	Log       *slog.Logger
}

// Admin serves /healthz, /readyz, /metrics and the routes it is given. Requests
// for a host that we are not, or from a page of another origin, are refused.
type Admin struct {
	cfg      AdminConfig
	server   *http.Server
	stopping atomic.Bool
}

// NewRegistry returns a metrics registry with the process's own figures.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// NewAdmin returns an admin server on a bound listener.
func NewAdmin(cfg AdminConfig) *Admin {
	a := &Admin{cfg: cfg}
	g := newGuard(cfg)
	if cfg.Metrics != nil {
		if err := g.log.Register(cfg.Metrics, "admin"); err != nil {
			cfg.Log.Warn("what is left out of the log is not counted", "err", err)
		}
	}
	mux := http.NewServeMux()
	open := func(pattern string, h http.Handler) { mux.Handle(pattern, g.stranger(h)) }
	open("GET /healthz", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) }))
	open("GET /readyz", http.HandlerFunc(a.readyz))
	open("GET /metrics", promhttp.HandlerFor(cfg.Metrics, promhttp.HandlerOpts{}))
	for pattern, h := range cfg.Open {
		open(pattern, h)
	}
	for pattern, h := range cfg.Routes {
		open(pattern, g.bearer(h))
	}
	for path, h := range map[string]http.HandlerFunc{"/": pprof.Index, "/cmdline": pprof.Cmdline, "/profile": pprof.Profile, "/symbol": pprof.Symbol, "/trace": pprof.Trace} {
		open("GET /debug/pprof"+path, g.bearer(h))
	}
	for pattern, h := range cfg.Own {
		mux.Handle(pattern, g.page(h))
	}
	a.server = &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
	}
	return a
}

// Stopping turns readiness off.
func (a *Admin) Stopping() { a.stopping.Store(true) }

// Run serves until ctx ends.
func (a *Admin) Run(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- a.server.Serve(a.cfg.Listener) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	a.Stopping()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 500*time.Millisecond)
	defer cancel()
	if err := a.server.Shutdown(grace); err != nil {
		_ = a.server.Close()
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (a *Admin) readyz(w http.ResponseWriter, _ *http.Request) {
	answer := struct {
		Status string   `json:"status"`
		Faults []string `json:"faults"`
	}{Status: "ok", Faults: []string{}}
	status := http.StatusOK
	faults, err := a.cfg.Readiness()
	switch {
	case a.stopping.Load():
		status, answer.Status = http.StatusServiceUnavailable, "stopping"
	case err != nil:
		status, answer.Status, answer.Faults = http.StatusServiceUnavailable, "starting", []string{err.Error()}
	case len(faults) > 0:
		answer.Status, answer.Faults = "degraded", faults
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
}
