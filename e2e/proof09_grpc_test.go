package e2e_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/xds"

	"tollgate/e2e/harness"
)

const grpcGateway = head + `
upstreams:
  - {name: v1, endpoints: ["${one}"], protocol: grpc}
  - {name: v2, endpoints: ["${two}"], protocol: grpc}
  - {name: greeter, split: [{upstream: v1, weight: %d}, {upstream: v2, weight: %d}]}
routes:
  - {name: greeter, match: {path: {prefix: /grpc.health.v1.Health}}, auth: public, upstream: greeter}
`

// TestProof09GRPCClient: a grpc-go client that knows nothing but xds:///greeter
// follows a change of the split, without a failed call. (A member whose weight
// was 0 is not in grpc-go's balancer: calls that race with its first weight can fail
// there with "unknown cluster", so both members keep some.)
func TestProof09GRPCClient(t *testing.T) {
	s := harness.NewStack(t, harness.Options{
		Gateway: fmt.Sprintf(grpcGateway, 9, 1), NoEnvoy: true, Vars: map[string]string{"one": greeter(t, "one"), "two": greeter(t, "two")},
	})
	resolver, err := xds.NewXDSResolverWithConfigForTesting(fmt.Appendf(nil,
		`{"xds_servers":[{"server_uri":%q,"channel_creds":[{"type":"insecure"}],"server_features":["xds_v3"]}],"node":{"id":"client-1","cluster":"grpc"}}`, s.XDS.Ready.Address))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("xds:///greeter", grpc.WithResolvers(resolver), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	share := func(calls int) (two int) {
		for range calls {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			var header metadata.MD
			_, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{}, grpc.Header(&header), grpc.WaitForReady(true))
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			if strings.Join(header.Get("name"), "") == "two" {
				two++
			}
		}
		return two
	}
	if n := share(400); n < 10 || n > 90 {
		t.Errorf("9:1 sent %d of 400 to the second", n)
	}
	s.Save(t, fmt.Sprintf(grpcGateway, 1, 9))
	harness.Eventually(t, 5*time.Second, "1:9 sends most to the second", func() error {
		if n := share(400); n < 310 || n > 390 {
			return fmt.Errorf("%d of 400", n)
		}
		return nil
	})
	s.Save(t, fmt.Sprintf(grpcGateway, 75, 25))
	harness.Eventually(t, 5*time.Second, "3:1 sends a quarter to the second", func() error {
		if n := share(400); n < 60 || n > 140 {
			return fmt.Errorf("%d of 400", n)
		}
		return nil
	})
}

// greeter is a gRPC server that says its name.
func greeter(t *testing.T, name string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if err := grpc.SetHeader(ctx, metadata.Pairs("name", name)); err != nil {
			return nil, err
		}
		return next(ctx, request)
	}))
	healthv1.RegisterHealthServer(server, health.NewServer())
	ended := make(chan struct{})
	go func() { _ = server.Serve(l); close(ended) }()
	t.Cleanup(func() { server.Stop(); <-ended })
	return l.Addr().String()
}
