package grpcserve_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"tollgate/internal/grpcserve"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// slow answers Check when it is let, or when its caller leaves.
type slow struct {
	healthv1.UnimplementedHealthServer
	entered, leave chan struct{}
}

func (s *slow) Check(ctx context.Context, _ *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	s.entered <- struct{}{}
	select {
	case <-s.leave:
		return &healthv1.HealthCheckResponse{}, nil
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

// TestEnd: a call that runs when the server is told to stop is finished within
// the grace and cut after it; whoever watches its health was told before.
func TestEnd(t *testing.T) {
	for name, c := range map[string]struct {
		leaves bool
		want   codes.Code
	}{"finished": {true, codes.OK}, "cut": {false, codes.Unavailable}} {
		t.Run(name, func(t *testing.T) {
			l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s := &slow{entered: make(chan struct{}), leave: make(chan struct{})}
			server, known := grpc.NewServer(), health.NewServer()
			healthv1.RegisterHealthServer(server, s)
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() {
				ended <- grpcserve.Run(ctx, grpcserve.Config{Name: "x", Listener: l, Server: server, Health: known, Grace: 300 * time.Millisecond})
			}()
			conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			answered := make(chan error, 1)
			go func() {
				_, err := healthv1.NewHealthClient(conn).Check(context.WithoutCancel(ctx), &healthv1.HealthCheckRequest{})
				answered <- err
			}()
			<-s.entered
			stop()
			for told := false; !told; time.Sleep(time.Millisecond) {
				r, err := known.Check(t.Context(), &healthv1.HealthCheckRequest{})
				told = err == nil && r.GetStatus() == healthv1.HealthCheckResponse_NOT_SERVING
			}
			if c.leaves {
				close(s.leave)
			}
			if err := <-answered; status.Code(err) != c.want {
				t.Errorf("the call ended with %v, want %v", err, c.want)
			}
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
}

// TestLostListener: a server that cannot serve says which.
func TestLostListener(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	err = grpcserve.Run(t.Context(), grpcserve.Config{Name: "extauthz", Listener: l, Server: grpc.NewServer(), Health: health.NewServer(), Grace: time.Second})
	if err == nil || !strings.Contains(err.Error(), "extauthz: serve "+l.Addr().String()) {
		t.Errorf("got %v", err)
	}
}
