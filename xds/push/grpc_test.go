package push_test

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
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/xds"

	"tollgate/xds/ledger"
)

// answering is a gRPC server that says its name in a header.
func answering(t *testing.T, name string) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		_ = grpc.SetHeader(ctx, metadata.Pairs("name", name))
		return handler(ctx, req)
	}))
	grpc_health_v1.RegisterHealthServer(g, health.NewServer())
	ended := make(chan struct{})
	go func() { _ = g.Serve(lis); close(ended) }()
	t.Cleanup(func() { g.Stop(); <-ended })
	return lis.Addr().String()
}

// dialXDS is a grpc-go client that knows the control plane only.
func dialXDS(t *testing.T, plane, target string) func() (string, error) {
	t.Helper()
	resolver, err := xds.NewXDSResolverWithConfigForTesting(fmt.Appendf(nil,
		`{"xds_servers":[{"server_uri":%q,"channel_creds":[{"type":"insecure"}],"server_features":["xds_v3"]}],"node":{"id":"order-1","cluster":"grpc"}}`, plane))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(target, grpc.WithResolvers(resolver), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return func() (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		var header metadata.MD
		_, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.Header(&header), grpc.WaitForReady(true))
		return strings.Join(header.Get("name"), ","), err
	}
}

// TestGRPCClient: grpc-go takes what is compiled for it over the adapter, by
// every way of balancing, follows edits without a failed call and outlives the
// control plane.
func TestGRPCClient(t *testing.T) {
	one, two := answering(t, "one"), answering(t, "two")
	for _, policy := range []string{"round_robin", "least_request", "random", "ring_hash, hash_on: header:x-user", "maglev, hash_on: header:x-user"} {
		t.Run(strings.TrimSuffix(strings.Fields(policy)[0], ","), func(t *testing.T) {
			file := func(address string) string {
				return gateway("127.0.0.1:1", fmt.Sprintf("upstreams:\n  - {name: order, endpoints: [%q], load_balancing: {policy: %s}}", address, policy), route("order"))
			}
			p := newPlane(t, "127.0.0.1:0")
			p.Publish(compiled(t, file(one)))
			call := dialXDS(t, p.address, "xds:///order")
			reach := func(want string) {
				t.Helper()
				within(t, 10*time.Second, want, func() bool {
					name, err := call()
					if err != nil {
						t.Fatal(err)
					}
					return name == want
				})
			}
			reach("one")
			p.Publish(compiled(t, file(two)))
			reach("two")
			for kind, state := range p.states() {
				if state == ledger.Refused {
					t.Errorf("%s refused: %+v", kind, p.book.Lines())
				}
			}
			p.stop()
			reach("two")
			again := newPlane(t, p.address)
			again.Publish(compiled(t, file(one)))
			reach("one")
		})
	}
}

// TestGRPCSplit: a split reaches both its parts.
func TestGRPCSplit(t *testing.T) {
	p := newPlane(t, "127.0.0.1:0")
	p.Publish(compiled(t, gateway("127.0.0.1:1", upstreams("one", answering(t, "one"), "two", answering(t, "two")),
		"  - {name: order, split: [{upstream: one, weight: 50}, {upstream: two, weight: 50}]}", route("order"))))
	call := dialXDS(t, p.address, "xds:///order")
	seen := map[string]bool{}
	for range 100 {
		name, err := call()
		if err != nil {
			t.Fatalf("%v; the control plane says %+v", err, p.book.Lines())
		}
		seen[name] = true
	}
	if !seen["one"] || !seen["two"] {
		t.Fatalf("reached %v", seen)
	}
}
