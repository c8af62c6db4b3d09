package grpcx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // client-side health checks
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	"tollgate/api/contract"
	"tollgate/internal/otlp"
	"tollgate/services/kit/fault"
	"tollgate/services/kit/requestid"
)

// serviceConfig: calls go round the instances whose health service says that
// they serve; grpc-go's own retries are off because resilience does them under
// one budget.
const serviceConfig = `{"loadBalancingConfig":[{"round_robin":{}}],"healthCheckConfig":{"serviceName":""}}`

// ClientConfig names a peer.
type ClientConfig struct {
	Peer      string                       // its name, for errors
	Addresses []string                     // host:port of its instances
	Token     func(context.Context) string // the caller's token, forwarded
	Tracing   *otlp.Tracing
	Options   []grpc.DialOption // credentials; none in clear text when nil
}

// Dial returns a connection to all instances of a peer. It does not wait for
// one of them to be there.
func Dial(cfg ClientConfig) (*grpc.ClientConn, error) {
	if len(cfg.Addresses) == 0 {
		return nil, fmt.Errorf("%s: no address: name at least one host:port", cfg.Peer)
	}
	state := resolver.State{}
	for _, a := range cfg.Addresses {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return nil, fmt.Errorf("%s: address %q: write host:port", cfg.Peer, a)
		}
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: a}}})
	}
	addresses := manual.NewBuilderWithScheme("instances")
	addresses.InitialState(state)
	options := []grpc.DialOption{
		grpc.WithResolvers(addresses),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDisableRetry(),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler(
			otelgrpc.WithTracerProvider(cfg.Tracing.Provider), otelgrpc.WithPropagators(cfg.Tracing.Propagator))),
		grpc.WithUnaryInterceptor(forward(cfg.Token)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 2 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: time.Second,
		}),
	}
	if cfg.Options == nil {
		options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	conn, err := grpc.NewClient("instances:///"+cfg.Peer, append(options, cfg.Options...)...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.Peer, err)
	}
	return conn, nil
}

// forward passes the caller's identity and the request's id on.
func forward(token func(context.Context) string) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if t := token(ctx); t != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, contract.HeaderToken, t)
		}
		if id := requestid.From(ctx); id != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, requestid.Header, id)
		}
		return invoke(ctx, method, req, reply, cc, opts...)
	}
}

// Transient reports whether a call that is safe to repeat may succeed on
// another try.
func Transient(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded:
		return true
	}
	return false
}

// FromPeer turns a peer's answer into our fault. What the peer said to our
// caller's request is passed on; its troubles become ours.
func FromPeer(peer string, err error) error {
	st := status.Convert(err)
	if errors.Is(err, context.DeadlineExceeded) { // ours, between two tries
		st = status.New(codes.DeadlineExceeded, err.Error())
	}
	switch st.Code() {
	case codes.NotFound:
		return fault.NotFound(st.Message())
	case codes.InvalidArgument:
		return fault.Invalid(st.Message())
	case codes.Unauthenticated:
		return fault.Unauthenticated(reason(st, "invalid_token"), "The "+peer+" service refused the identity", err)
	case codes.PermissionDenied:
		return fault.Forbidden(reason(st, "permission_denied"), st.Message())
	case codes.DeadlineExceeded:
		return fault.Timeout("The "+peer+" service did not answer in time", err)
	}
	return fault.Unavailable("The "+peer+" service is unavailable", err)
}

func reason(st *status.Status, fallback string) string {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return fallback
}
