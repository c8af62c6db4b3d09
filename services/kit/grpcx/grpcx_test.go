package grpcx_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/propagation"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"tollgate/api/contract"
	userv1 "tollgate/api/user/v1"
	"tollgate/internal/otlp"
	"tollgate/services/kit/fault"
	"tollgate/services/kit/grpcx"
	"tollgate/services/kit/red"
	"tollgate/services/kit/requestid"
	"tollgate/services/kit/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type password string

func (p password) Authenticate(ctx context.Context, token string) (context.Context, error) {
	if token != string(p) {
		return nil, fault.Unauthenticated("invalid_token", "The identity is not valid here", errors.New("cause-for-the-log"))
	}
	return ctx, nil
}

// peer answers by the id asked for.
type peer struct {
	userv1.UnimplementedUserServiceServer
	name     string
	calls    atomic.Int32
	deadline atomic.Int64
	seen     atomic.Pointer[metadata.MD]
}

func (p *peer) GetUser(ctx context.Context, req *userv1.GetUserRequest) (*userv1.GetUserResponse, error) {
	p.calls.Add(1)
	md, _ := metadata.FromIncomingContext(ctx)
	p.seen.Store(&md)
	if d, ok := ctx.Deadline(); ok {
		p.deadline.Store(int64(time.Until(d)))
	}
	switch req.GetId() {
	case "panic":
		panic("secret-of-ours")
	case "broken":
		return nil, errors.New("secret-of-ours")
	case "absent":
		return nil, fault.NotFound("User not found")
	case "hang":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &userv1.GetUserResponse{User: &userv1.User{Id: req.GetId(), Name: p.name}}, nil
}

func tracing(t *testing.T) *otlp.Tracing {
	t.Helper()
	tr, err := otlp.New(t.Context(), "test", "i")
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func serve(t *testing.T, p *peer) (address string, server *grpcx.Server, stop func()) {
	t.Helper()
	metrics, err := red.New(prometheus.NewRegistry(), "test")
	if err != nil {
		t.Fatal(err)
	}
	l := testkit.Listen(t)
	server = grpcx.NewServer(grpcx.ServerConfig{
		Listener: l, Instance: p.name, Auth: password("good"), Metrics: metrics, Tracing: tracing(t), Log: testkit.Quiet(),
		Grace: time.Second, Register: func(r grpc.ServiceRegistrar) { userv1.RegisterUserServiceServer(r, p) },
	})
	return l.Addr().String(), server, testkit.Start(t, server)
}

func dial(t *testing.T, token string, addresses ...string) userv1.UserServiceClient {
	t.Helper()
	conn, err := grpcx.Dial(grpcx.ClientConfig{
		Peer: "user", Addresses: addresses, Tracing: tracing(t), Token: func(context.Context) string { return token },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return userv1.NewUserServiceClient(conn)
}

func TestAnswers(t *testing.T) {
	address, _, _ := serve(t, &peer{name: "a"})
	for _, tt := range []struct {
		token, id string
		code      codes.Code
		reason    string
	}{
		{"good", "7", codes.OK, ""},
		{"good", "absent", codes.NotFound, "not_found"},
		{"good", "panic", codes.Internal, "internal"},
		{"good", "broken", codes.Internal, "internal"},
		{"bad", "7", codes.Unauthenticated, "invalid_token"},
		{"", "7", codes.Unauthenticated, "missing_credential"},
		{"good", strings.Repeat("x", 65<<10), codes.ResourceExhausted, ""},
	} {
		_, err := dial(t, tt.token, address).GetUser(t.Context(), &userv1.GetUserRequest{Id: tt.id})
		st := status.Convert(err)
		if st.Code() != tt.code {
			t.Errorf("%q %.10q: %v, want %v", tt.token, tt.id, err, tt.code)
		}
		if strings.Contains(st.String(), "secret-of-ours") || strings.Contains(st.String(), "cause-for-the-log") {
			t.Errorf("the peer sees our cause: %v", st)
		}
		reason := ""
		for _, d := range st.Details() {
			if info, ok := d.(*errdetails.ErrorInfo); ok {
				reason = info.GetReason()
			}
		}
		if reason != tt.reason {
			t.Errorf("%q %.10q: reason %q, want %q", tt.token, tt.id, reason, tt.reason)
		}
	}
}

// Identity, request id, trace and deadline reach the peer.
func TestForwards(t *testing.T) {
	p := &peer{name: "a"}
	address, _, _ := serve(t, p)
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	ctx := propagation.TraceContext{}.Extract(requestid.With(t.Context(), "req-1"), propagation.MapCarrier{"traceparent": parent})
	ctx, cancel := context.WithTimeout(ctx, 700*time.Millisecond)
	defer cancel()
	var header metadata.MD
	if _, err := dial(t, "good", address).GetUser(ctx, &userv1.GetUserRequest{Id: "7"}, grpc.Header(&header)); err != nil {
		t.Fatal(err)
	}
	md := *p.seen.Load()
	for key, want := range map[string]string{"x-auth-token": "good", "x-request-id": "req-1", "traceparent": parent} {
		if got := md.Get(key); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	if d := time.Duration(p.deadline.Load()); d <= 0 || d > 700*time.Millisecond {
		t.Errorf("the peer's deadline is in %v", d)
	}
	if header.Get("x-request-id")[0] != "req-1" || header.Get("x-served-by")[0] != "a" {
		t.Errorf("header %v", header)
	}
}

// Calls go round; an instance that drains gets no new ones though it still
// answers; one that stops fails none.
func TestRoundRobinAndDrain(t *testing.T) {
	a, b := &peer{name: "a"}, &peer{name: "b"}
	addressA, serverA, stopA := serve(t, a)
	addressB, _, _ := serve(t, b)
	client := dial(t, "good", addressA, addressB)
	call := func() {
		t.Helper()
		if _, err := client.GetUser(t.Context(), &userv1.GetUserRequest{Id: "7"}); err != nil {
			t.Fatal(err)
		}
	}
	testkit.Until(t, "both connected", func() bool { call(); return a.calls.Load() > 0 && b.calls.Load() > 0 })
	beforeA, beforeB := a.calls.Load(), b.calls.Load()
	for range 100 {
		call()
	}
	if gotA, gotB := a.calls.Load()-beforeA, b.calls.Load()-beforeB; gotA != 50 || gotB != 50 {
		t.Errorf("%d and %d of 100", gotA, gotB)
	}
	serverA.Drain()
	testkit.Until(t, "a left alone", func() bool {
		before := a.calls.Load()
		for range 4 {
			call()
		}
		return a.calls.Load() == before
	})
	stopA()
	for range 20 {
		call()
	}
}

func TestHealthIsOpen(t *testing.T) {
	address, _, _ := serve(t, &peer{name: "a"})
	conn, err := grpcx.Dial(grpcx.ClientConfig{Peer: "user", Addresses: []string{address}, Tracing: tracing(t), Token: func(context.Context) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	got, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || got.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("%v %v", got, err)
	}
}

func TestFromPeer(t *testing.T) {
	for _, tt := range []struct {
		code codes.Code
		want int
	}{
		{codes.NotFound, 404},
		{codes.InvalidArgument, 400},
		{codes.Unauthenticated, 401},
		{codes.PermissionDenied, 403},
		{codes.DeadlineExceeded, 504},
		{codes.Unavailable, 503},
		{codes.Internal, 503},
		{codes.Unknown, 503},
	} {
		f := fault.Of(grpcx.FromPeer("user", status.Error(tt.code, "said")))
		if f.Status != tt.want || (f.Status >= 500 && strings.Contains(f.Message, "said")) {
			t.Errorf("%v: %+v, want %d", tt.code, f, tt.want)
		}
	}
	if f := fault.Of(grpcx.FromPeer("user", context.DeadlineExceeded)); f.Status != 504 {
		t.Errorf("our own deadline: %+v", f)
	}
	if grpcx.Transient(status.Error(codes.NotFound, "")) || !grpcx.Transient(status.Error(codes.Unavailable, "")) {
		t.Error("Transient")
	}
}

func TestDialRefuses(t *testing.T) {
	for _, addresses := range [][]string{nil, {"nohost"}} {
		if _, err := grpcx.Dial(grpcx.ClientConfig{Peer: "user", Addresses: addresses, Tracing: tracing(t)}); err == nil {
			t.Errorf("%q: no error", addresses)
		}
	}
}

// TestTwoIdentities: of two lines of one identity header nobody can say which
// one counts.
func TestTwoIdentities(t *testing.T) {
	p := &peer{name: "a"}
	address, _, _ := serve(t, p)
	client := dial(t, "good", address)
	ctx := metadata.AppendToOutgoingContext(t.Context(), contract.HeaderToken, "good")
	_, err := client.GetUser(ctx, &userv1.GetUserRequest{Id: "7"})
	if status.Code(err) != codes.Unauthenticated || p.calls.Load() != 0 {
		t.Errorf("%v, %d calls", err, p.calls.Load())
	}
}

// TestCallsAreBounded: a caller that sets no deadline gets one of 5 s.
func TestCallsAreBounded(t *testing.T) {
	p := &peer{name: "a"}
	address, _, _ := serve(t, p)
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := metadata.AppendToOutgoingContext(context.Background(), contract.HeaderToken, "good")
	if _, err := userv1.NewUserServiceClient(conn).GetUser(ctx, &userv1.GetUserRequest{Id: "7"}); err != nil {
		t.Fatal(err)
	}
	if left := time.Duration(p.deadline.Load()); left <= 0 || left > 5*time.Second {
		t.Errorf("the call may last %v", left)
	}
}
