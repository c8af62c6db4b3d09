package compile_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"

	"tollgate/xds/compile"
	"tollgate/xds/compile/field"
)

// mute is a limiter that never answers.
type mute struct {
	rlsv3.UnimplementedRateLimitServiceServer
	mu   sync.Mutex
	asks int
}

// ShouldRateLimit waits until nobody does.
func (m *mute) ShouldRateLimit(ctx context.Context, _ *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	m.mu.Lock()
	m.asks++
	m.mu.Unlock()
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestFewWaitForALimiter: when limiters hang, so many requests wait for them and
// no more; all others do at once what their limits say then.
func TestFewWaitForALimiter(t *testing.T) {
	const most, callers = 20, 100
	for target, want := range map[string]int{"/open": 200, "/closed": 503} {
		t.Run(target, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			m, g := &mute{}, grpc.NewServer()
			rlsv3.RegisterRateLimitServiceServer(g, m)
			go func() { _ = g.Serve(l) }()
			t.Cleanup(g.Stop)
			address := freePort(t)
			yaml := strings.NewReplacer("ADDRESS", address, "BACKEND", backend(t, "a"), "PROXIES", "10.0.0.0/8").Replace(guarded)
			_, authz := serve(t)
			objects, _ := everything(parse(t, newPEMs(t), "gateway.yaml", []byte(yaml)), compile.Scope{ExtAuthz: []string{authz}, RateLimit: []string{l.Addr().String()}}, nil)
			for _, o := range objects {
				if c, ok := o.Message.(*clusterv3.Cluster); ok && strings.HasSuffix(c.GetName(), "ratelimit") {
					at := c.GetCircuitBreakers().GetThresholds()[0]
					if n := at.GetMaxRequests().GetValue(); n > 10_000 {
						t.Errorf("%d may wait", n)
					}
					at.MaxRequests = field.Uint(most)
				}
			}
			e := start(t, bootstrap(t, objects), address)
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					if a := e.do("GET", target, nil, "authorization", "x"); a.status != want {
						t.Errorf("%d %s, want %d", a.status, a.body, want)
					}
				})
			}
			wg.Wait()
			m.mu.Lock()
			defer m.mu.Unlock()
			// Each of those that wait asks twice at most.
			if m.asks > 2*most || m.asks < most {
				t.Errorf("%d callers asked %d times; at most %d of them may wait", callers, m.asks, most)
			}
		})
	}
}
