package ratelimit_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	limitsv1 "tollgate/api/limits/v1"
	"tollgate/ratelimit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// controlPlane is a real delta ADS server of rule sets.
type controlPlane struct {
	address string
	cache   *cache.LinearCache
	nacks   chan string
}

func startControlPlane(t *testing.T) *controlPlane {
	t.Helper()
	l := listen(t)
	cp := &controlPlane{address: l.Addr().String(), cache: cache.NewLinearCache(ratelimit.TypeRuleSet), nacks: make(chan string, 64)}
	ctx, cancel := context.WithCancel(context.Background())
	callbacks := serverv3.CallbackFuncs{StreamDeltaRequestFunc: func(_ int64, req *discoveryv3.DeltaDiscoveryRequest) error {
		if e := req.GetErrorDetail(); e != nil {
			cp.nacks <- e.GetMessage()
		}
		return nil
	}}
	server := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, serverv3.NewServer(ctx, cp.cache, callbacks))
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() {
		cancel()
		server.Stop()
	})
	return cp
}

func (cp *controlPlane) set(t *testing.T, name string, rules ...*limitsv1.Rule) {
	t.Helper()
	if err := cp.cache.UpdateResource(name, &limitsv1.RuleSet{Name: name, Rules: rules}); err != nil {
		t.Fatal(err)
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// limiter is a running server.
type limiter struct {
	address net.Addr
	server  *ratelimit.Server
	client  rlsv3.RateLimitServiceClient
	health  healthv1.HealthClient
	metrics *prometheus.Registry
	log     *logBuffer
	stop    func() error // SIGTERM; waits
}

func startLimiter(t *testing.T, xds, redisURL string) *limiter {
	t.Helper()
	l := listen(t)
	lim := &limiter{address: l.Addr(), metrics: prometheus.NewRegistry(), log: &logBuffer{}}
	server, err := ratelimit.New(ratelimit.Config{
		Listener: l, XDSServers: []string{xds}, NodeID: "limiter-1", RedisURL: redisURL,
		Log: slog.New(slog.NewJSONHandler(lim.log, nil)), Metrics: lim.metrics,
	})
	if err != nil {
		t.Fatal(err)
	}
	lim.server = server
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	lim.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	lim.client, lim.health = rlsv3.NewRateLimitServiceClient(conn), healthv1.NewHealthClient(conn)
	t.Cleanup(func() {
		conn.Close()
		if err := lim.stop(); err != nil {
			t.Error(err)
		}
	})
	return lim
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for begin := time.Now(); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Since(begin) > 5*time.Second {
			t.Fatal(what)
		}
	}
}

func rule(id string, limit uint64) *limitsv1.Rule {
	return &limitsv1.Rule{
		Id: id, Slot: id, Limit: limit, Window: durationpb.New(720 * time.Hour), Unit: "month",
		Algorithm: limitsv1.Rule_FIXED, OnError: limitsv1.Rule_LOCAL,
	}
}

func request(limit string) *rlsv3.RateLimitRequest {
	return &rlsv3.RateLimitRequest{Domain: "tollgate", Descriptors: []*ratelimitv3.RateLimitDescriptor{{
		Entries: []*ratelimitv3.RateLimitDescriptor_Entry{{Key: "limit", Value: limit}},
	}}}
}

func (l *limiter) ask(limit string) (rlsv3.RateLimitResponse_Code, error) {
	answer, err := l.client.ShouldRateLimit(context.Background(), request(limit))
	return answer.GetOverallCode(), err
}

func (l *limiter) serving(t *testing.T) bool {
	t.Helper()
	answer, err := l.health.Check(context.Background(), &healthv1.HealthCheckRequest{Service: "envoy.service.ratelimit.v3.RateLimitService"})
	if err != nil {
		t.Fatal(err)
	}
	return answer.GetStatus() == healthv1.HealthCheckResponse_SERVING
}

func TestServerFollowsTheControlPlane(t *testing.T) {
	down := listen(t)
	nowhere := down.Addr().String()
	down.Close()
	waiting := startLimiter(t, nowhere, "")
	if waiting.server.Ready() == nil || waiting.serving(t) {
		t.Error("ready without rules")
	}
	if _, err := waiting.ask("gateway/all"); status.Code(err) != codes.Unavailable {
		t.Errorf("without rules: %v, want UNAVAILABLE so that the route decides", err)
	}

	cp := startControlPlane(t)
	cp.set(t, "gateway", rule("gateway/all", 2))
	lim := startLimiter(t, cp.address, "")
	await(t, "never ready", func() bool { return lim.server.Ready() == nil })
	if !lim.serving(t) {
		t.Error("ready, but health says no")
	}
	for i, want := range []rlsv3.RateLimitResponse_Code{1, 1, 2} {
		if got, err := lim.ask("gateway/all"); got != want || err != nil {
			t.Fatalf("request %d: %s, %v", i, got, err)
		}
	}

	t.Run("a raised limit keeps the count", func(t *testing.T) {
		cp.set(t, "gateway", rule("gateway/all", 3))
		await(t, "the new number is not used", func() bool {
			got, _ := lim.ask("gateway/all")
			return got == rlsv3.RateLimitResponse_OK
		})
		if got, _ := lim.ask("gateway/all"); got != rlsv3.RateLimitResponse_OVER_LIMIT {
			t.Errorf("a fourth of three: %s", got)
		}
	})
	t.Run("a bad set is refused by name", func(t *testing.T) {
		bad := rule("route/bad/0", 1)
		bad.Window = durationpb.New(0)
		cp.set(t, "route/bad", bad)
		select {
		case text := <-cp.nacks:
			if !strings.Contains(text, `rule set "route/bad", rule 0`) {
				t.Errorf("NACK %q", text)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("no NACK")
		}
		if lim.server.Ready() != nil {
			t.Error("a bad set made the limiter unready")
		}
		if faults := lim.server.Faults(); len(faults) != 1 || !strings.Contains(faults[0], "route/bad") {
			t.Errorf("faults %q", faults)
		}
		if got, err := lim.ask("gateway/all"); got != rlsv3.RateLimitResponse_OVER_LIMIT || err != nil {
			t.Errorf("the last good rules are gone: %s, %v", got, err)
		}
	})
	t.Run("a removed rule still answers", func(t *testing.T) {
		cp.set(t, "route/bad", rule("route/good/0", 1))
		await(t, "the next good set does not land", func() bool {
			_, err := lim.ask("route/good/0")
			return err == nil
		})
		if faults := lim.server.Faults(); len(faults) != 0 {
			t.Errorf("faults %q", faults)
		}
		if err := cp.cache.DeleteResource("gateway"); err != nil {
			t.Fatal(err)
		}
		await(t, "the removal does not land", func() bool { return strings.Contains(lim.log.String(), `"removed":1`) })
		if got, err := lim.ask("gateway/all"); got != rlsv3.RateLimitResponse_OVER_LIMIT || err != nil {
			t.Errorf("removed: %s, %v", got, err)
		}
	})
	t.Run("metrics", func(t *testing.T) {
		problems, err := testutil.GatherAndLint(lim.metrics)
		if err != nil || len(problems) > 0 {
			t.Errorf("%v, %v", problems, err)
		}
		// Five decisions, two results of updates, and each of the two rules.
		if n, err := testutil.GatherAndCount(lim.metrics, "tollgate_ratelimit_requests_total", "tollgate_ratelimit_refused_total", "tollgate_ratelimit_rule_updates_total"); err != nil || n != 9 {
			t.Errorf("%d series, %v", n, err)
		}
	})
}

// TestNoLimits: a gateway without limits is a complete set too.
func TestNoLimits(t *testing.T) {
	lim := startLimiter(t, startControlPlane(t).address, "")
	await(t, "never ready", func() bool { return lim.server.Ready() == nil })
}

// TestGracefulStop: of two limiters, one stops under load; callers that, like
// Envoy, go to the other on a refused stream see no failure.
func TestGracefulStop(t *testing.T) {
	cp := startControlPlane(t)
	cp.set(t, "gateway", rule("gateway/all", 1e9))
	staying, leaving := startLimiter(t, cp.address, ""), startLimiter(t, cp.address, "")
	for _, l := range []*limiter{staying, leaving} {
		await(t, "never ready", func() bool { return l.server.Ready() == nil })
	}
	var failed, moved atomic.Int64
	stopped := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for end := 50; end > 0; {
				_, err := leaving.ask("gateway/all")
				if status.Code(err) == codes.Unavailable {
					moved.Add(1)
					_, err = staying.ask("gateway/all")
				}
				if err != nil {
					failed.Add(1)
				}
				select {
				case <-stopped:
					end--
				default:
				}
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	begin := time.Now()
	if err := leaving.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("stopping took %s", took)
	}
	close(stopped)
	wg.Wait()
	if failed.Load() != 0 || moved.Load() == 0 {
		t.Errorf("%d failed, %d moved", failed.Load(), moved.Load())
	}
}

// TestTakenMetrics: two limiters in one registry are an error at start.
func TestTakenMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	for i := range 2 {
		l := listen(t)
		_, err := ratelimit.New(ratelimit.Config{Listener: l, XDSServers: []string{"127.0.0.1:1"}, NodeID: fmt.Sprint(i), Log: slog.New(slog.DiscardHandler), Metrics: registry})
		if (err != nil) != (i == 1) {
			t.Errorf("limiter %d: %v", i, err)
		}
		l.Close()
	}
}

func TestBadRedisURL(t *testing.T) {
	l := listen(t)
	defer l.Close()
	_, err := ratelimit.New(ratelimit.Config{
		Listener: l, XDSServers: []string{"127.0.0.1:1"}, RedisURL: "http://user:s3cret@host",
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	if err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Fatalf("error %v", err)
	}
}
