// Package grpcx is the gRPC side of a service: a server that knows its callers
// and bounds every call, and a client that spreads over healthy instances.
// Invariant: only the health service answers without an authenticated caller,
// and every error that leaves is a fault's code and message.
package grpcx

import (
	"context"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"tollgate/api/contract"
	"tollgate/internal/grpcserve"
	"tollgate/internal/otlp"
	"tollgate/services/kit/fault"
	"tollgate/services/kit/red"
	"tollgate/services/kit/requestid"
)

const (
	requestTimeout = 5 * time.Second
	maxMessage     = 64 << 10
)

// Authenticator names the caller of a token: the context it returns carries
// the caller. Errors are faults.
type Authenticator interface {
	Authenticate(ctx context.Context, token string) (context.Context, error)
}

// ServerConfig is what a server needs.
type ServerConfig struct {
	Listener net.Listener
	Instance string
	Auth     Authenticator
	Metrics  *red.Metrics
	Tracing  *otlp.Tracing
	Log      *slog.Logger
	Grace    time.Duration               // for calls that run when it stops
	Register func(grpc.ServiceRegistrar) // adds the services
}

// Server serves until its context ends.
type Server struct {
	cfg    ServerConfig
	server *grpc.Server
	health *health.Server
}

// NewServer returns a server on a bound listener.
func NewServer(cfg ServerConfig) *Server {
	s := &Server{cfg: cfg, health: health.NewServer()}
	s.server = grpc.NewServer(
		grpc.StatsHandler(otelgrpc.NewServerHandler(
			otelgrpc.WithTracerProvider(cfg.Tracing.Provider), otelgrpc.WithPropagators(cfg.Tracing.Propagator))),
		grpc.UnaryInterceptor(s.intercept),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(1000),
		grpc.ConnectionTimeout(5*time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	healthpb.RegisterHealthServer(s.server, s.health)
	cfg.Register(s.server)
	return s
}

// Drain tells health watchers to go elsewhere; calls are still answered.
func (s *Server) Drain() { s.health.Shutdown() }

// Run serves until ctx ends, then stops accepting and finishes what runs.
func (s *Server) Run(ctx context.Context) error {
	return grpcserve.Run(ctx, grpcserve.Config{Name: "gRPC", Listener: s.cfg.Listener, Server: s.server, Health: s.health, Grace: s.cfg.Grace})
}

func (s *Server) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	start, end := time.Now(), s.cfg.Metrics.Begin()
	ctx, cancel := context.WithTimeout(requestid.With(ctx, single(ctx, requestid.Header)), requestTimeout)
	defer cancel()
	id := requestid.From(ctx)
	defer func() {
		if v := recover(); v != nil {
			s.cfg.Log.Error("handler panicked", "resource", info.FullMethod, "request_id", id, "err", v, "stack", string(debug.Stack()))
			err = fault.Of(nil)
		}
		if err != nil {
			err = s.refusal(ctx, err)
		}
		end("GRPC", info.FullMethod, status.Code(err).String())
		s.cfg.Log.Debug("call answered", "resource", info.FullMethod, "status", status.Code(err), "request_id", id, "dur", time.Since(start))
	}()
	// A header that cannot be sent means that the caller has left.
	_ = grpc.SetHeader(ctx, metadata.Pairs("x-served-by", s.cfg.Instance, requestid.Header, id))
	if _, open := info.Server.(healthpb.HealthServer); open {
		return handler(ctx, req)
	}
	known, err := s.authenticate(ctx)
	if err != nil {
		return nil, err
	}
	return handler(known, req)
}

func (s *Server) authenticate(ctx context.Context) (context.Context, error) {
	switch tokens := metadata.ValueFromIncomingContext(ctx, contract.HeaderToken); len(tokens) {
	case 0:
		return nil, fault.Unauthenticated("missing_credential", "The call carries no identity", nil)
	case 1:
		return s.cfg.Auth.Authenticate(ctx, tokens[0])
	}
	return nil, fault.Unauthenticated("ambiguous_credentials", "The call carries more than one identity", nil)
}

// refusal logs the cause and returns what the caller may see.
func (s *Server) refusal(ctx context.Context, err error) error {
	f := fault.Of(err)
	level := slog.LevelDebug
	switch f.Code {
	case codes.Internal, codes.Unavailable, codes.DeadlineExceeded:
		level = slog.LevelWarn
	}
	s.cfg.Log.Log(ctx, level, "call refused", "request_id", requestid.From(ctx), "decision", f.Reason, "err", f)
	st := status.New(f.Code, f.Message)
	if detailed, err := st.WithDetails(&errdetails.ErrorInfo{Reason: f.Reason, Domain: "tollgate"}); err == nil {
		st = detailed
	}
	return st.Err()
}

func single(ctx context.Context, key string) string {
	if v := metadata.ValueFromIncomingContext(ctx, key); len(v) == 1 {
		return v[0]
	}
	return ""
}
