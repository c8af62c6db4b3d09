// Package httpx is the HTTP side of a service: routing, the error envelope,
// strict JSON, request ids, metrics, traces and a graceful end. Invariant: no
// handler runs without an authenticated caller unless it was registered with
// Open, and every refusal is the envelope.
package httpx

import (
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/trace"

	"tollgate/api/contract"
	"tollgate/internal/envelope"
	"tollgate/internal/otlp"
	"tollgate/services/kit/fault"
	"tollgate/services/kit/red"
	"tollgate/services/kit/requestid"
)

const (
	requestTimeout = 5 * time.Second
	maxBody        = 64 << 10
)

// Handler answers a request or returns why it cannot.
type Handler func(w http.ResponseWriter, r *http.Request) error

// Authenticator names the caller of a token: the context it returns carries
// the caller. Errors are faults.
type Authenticator interface {
	Authenticate(ctx context.Context, token string) (context.Context, error)
}

// Config is what a router needs.
type Config struct {
	Service, Instance string
	Auth              Authenticator
	Metrics           *red.Metrics
	Tracing           *otlp.Tracing
	Log               *slog.Logger
}

// Router serves the endpoints of one service.
type Router struct {
	cfg      Config
	mux      *http.ServeMux
	outer    http.Handler
	draining atomic.Bool
}

// endpoint is one registered pattern. Its type tells it from the redirects
// that ServeMux makes up for paths that it would clean.
type endpoint struct {
	router *Router
	serve  Handler
	open   bool
}

// NewRouter returns a router that knows only /healthz.
func NewRouter(cfg Config) *Router {
	rt := &Router{cfg: cfg, mux: http.NewServeMux()}
	rt.outer = otelhttp.NewHandler(http.HandlerFunc(rt.serve), cfg.Service,
		otelhttp.WithTracerProvider(cfg.Tracing.Provider),
		otelhttp.WithPropagators(cfg.Tracing.Propagator),
		otelhttp.WithFilter(func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/api/") }))
	rt.Open("GET /healthz", func(w http.ResponseWriter, _ *http.Request) error {
		if rt.draining.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte("draining\n"))
			return nil
		}
		_, _ = w.Write([]byte("ok\n"))
		return nil
	})
	return rt
}

// Handle registers an endpoint for authenticated callers. Patterns are those
// of http.ServeMux, with a method.
func (rt *Router) Handle(pattern string, h Handler) {
	rt.mux.Handle(pattern, endpoint{router: rt, serve: h})
}

// Open registers an endpoint for everybody.
func (rt *Router) Open(pattern string, h Handler) {
	rt.mux.Handle(pattern, endpoint{router: rt, serve: h, open: true})
}

// Drain makes /healthz answer 503 and asks clients to leave after the answer
// they get.
func (rt *Router) Drain() { rt.draining.Store(true) }

// ServeHTTP answers a request.
func (rt *Router) ServeHTTP(w http.ResponseWriter, r *http.Request) { rt.outer.ServeHTTP(w, r) }

// ServeHTTP runs the handler and answers its error.
func (e endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := e.serve(w, r); err != nil {
		e.router.fail(w, r, err)
	}
}

func (rt *Router) serve(w http.ResponseWriter, r *http.Request) {
	start, end := time.Now(), rt.cfg.Metrics.Begin()
	ctx, cancel := context.WithTimeout(requestid.With(r.Context(), r.Header.Get(requestid.Header)), requestTimeout)
	defer cancel()
	r = r.WithContext(ctx)
	rec := &recorder{ResponseWriter: w}
	rec.Header().Set(requestid.Header, requestid.From(ctx))
	rec.Header().Set("X-Served-By", rt.cfg.Instance)
	rec.Header().Set("X-Content-Type-Options", "nosniff")
	if rt.draining.Load() {
		rec.Header().Set("Connection", "close")
	}
	pattern := "unknown"
	defer func() {
		if v := recover(); v != nil {
			rt.cfg.Log.Error("handler panicked", "resource", pattern, "request_id", requestid.From(ctx), "err", v, "stack", string(debug.Stack()))
			rt.fail(rec, r, fault.Of(nil))
		}
		end(method(r.Method), pattern, strconv.Itoa(rec.code()))
		rt.cfg.Log.Debug("request answered", "resource", pattern, "status", rec.code(), "request_id", requestid.From(ctx), "dur", time.Since(start))
	}()
	pattern = rt.dispatch(rec, r)
}

// dispatch answers and returns the pattern that did.
func (rt *Router) dispatch(w http.ResponseWriter, r *http.Request) string {
	h, pattern := rt.mux.Handler(r)
	known, registered := h.(endpoint)
	if !registered || !known.open {
		ctx, err := rt.authenticate(r.Context(), r.Header.Values(contract.HeaderToken))
		if err != nil {
			rt.fail(w, r, err)
			return name(pattern, registered)
		}
		r = r.WithContext(ctx)
	}
	if !registered {
		rt.refuse(w, r, h, pattern)
		return name(pattern, false)
	}
	trace.SpanFromContext(r.Context()).SetName(pattern)
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	rt.mux.ServeHTTP(w, r)
	return name(pattern, true)
}

func (rt *Router) authenticate(ctx context.Context, tokens []string) (context.Context, error) {
	switch len(tokens) {
	case 0:
		return nil, fault.Unauthenticated("missing_credential", "The request carries no identity", nil)
	case 1:
		return rt.cfg.Auth.Authenticate(ctx, tokens[0])
	}
	return nil, fault.Unauthenticated("ambiguous_credentials", "The request carries more than one identity", nil)
}

// refuse answers what ServeMux itself would: 405 with Allow, or 404; never its
// redirects, since a path that needs cleaning is not one of ours.
func (rt *Router) refuse(w http.ResponseWriter, r *http.Request, h http.Handler, pattern string) {
	probe := &discard{header: http.Header{}}
	if pattern == "" {
		h.ServeHTTP(probe, r)
	}
	if probe.status == http.StatusMethodNotAllowed {
		w.Header()["Allow"] = probe.header["Allow"]
		rt.fail(w, r, fault.MethodNotAllowed())
		return
	}
	rt.fail(w, r, fault.NotFound("Not found"))
}

func (rt *Router) fail(w http.ResponseWriter, r *http.Request, err error) {
	f := fault.Of(err)
	id := requestid.From(r.Context())
	if f.Status >= http.StatusInternalServerError {
		rt.cfg.Log.Warn("request failed", "request_id", id, "decision", f.Reason, "err", f)
	} else {
		rt.cfg.Log.Debug("request refused", "request_id", id, "decision", f.Reason, "err", f)
	}
	if rec, ok := w.(*recorder); ok && rec.status != 0 {
		return // the answer has begun; a second one would only corrupt it
	}
	if f.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	if f.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+rt.cfg.Service+`"`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.Status)
	_, _ = w.Write(envelope.JSON(f.Status, f.Reason, f.Message, id, time.Now()))
}

func name(pattern string, registered bool) string {
	if !registered {
		return "unknown"
	}
	if _, path, ok := strings.Cut(pattern, " "); ok {
		return path
	}
	return pattern
}

func method(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "other"
}

type recorder struct {
	http.ResponseWriter
	status int
}

func (rec *recorder) WriteHeader(status int) {
	if rec.status == 0 {
		rec.status = status
	}
	rec.ResponseWriter.WriteHeader(status)
}

func (rec *recorder) Write(p []byte) (int, error) {
	if rec.status == 0 {
		rec.status = http.StatusOK
	}
	return rec.ResponseWriter.Write(p)
}

// Unwrap lets http.MaxBytesReader and ResponseController reach the connection.
func (rec *recorder) Unwrap() http.ResponseWriter { return rec.ResponseWriter }

func (rec *recorder) code() int {
	if rec.status == 0 {
		return http.StatusOK
	}
	return rec.status
}

// discard is asked only for a status and headers.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }
