package e2e_test

import (
	"context"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"tollgate/e2e/harness"
)

const oracleGateway = head + `
plans: [{name: pro, rate_limit: [{limit: 9, per: hour, by: [tenant]}]}]
rate_limit: [{name: all, limit: 20, per: hour}]
upstreams: [{name: up, endpoints: ["${up}"]}]
routes:
  - {name: main, match: {path: {prefix: /main}}, auth: public, upstream: up, rate_limit: [{name: user, limit: 4, per: hour, by: [tenant, user]}]}
`

// TestReferenceLimiter: envoyproxy/ratelimit, fed by our control plane with its
// own kind of config, answers one client as our limiter does.
func TestReferenceLimiter(t *testing.T) {
	awayFromTheHour(t)
	redis := harness.StartRedis(t)
	up := harness.NewUpstream(t, "up")
	s := harness.NewStack(t, harness.Options{Gateway: oracleGateway, NoEnvoy: true, Vars: map[string]string{"up": up.Address}})
	reference := startReference(t, s, redis)

	descriptor := func(pairs ...string) *ratelimitv3.RateLimitDescriptor {
		d := &ratelimitv3.RateLimitDescriptor{}
		for i := 0; i < len(pairs); i += 2 {
			d.Entries = append(d.Entries, &ratelimitv3.RateLimitDescriptor_Entry{Key: pairs[i], Value: pairs[i+1]})
		}
		return d
	}
	ask := func(address, tenant, user string) rlsv3.RateLimitResponse_Code {
		t.Helper()
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		// As a route's filter config sends them: gateway, plan, route.
		answer, err := rlsv3.NewRateLimitServiceClient(conn).ShouldRateLimit(ctx, &rlsv3.RateLimitRequest{Domain: "tollgate", Descriptors: []*ratelimitv3.RateLimitDescriptor{
			descriptor("limit", "gateway/all"),
			descriptor("limit", "plan/0/tenant", "plan", "pro", "tenant", tenant),
			descriptor("limit", "route/main/user", "tenant", tenant, "user", user),
		}})
		if err != nil {
			t.Fatal(err)
		}
		return answer.GetOverallCode()
	}
	var ours, theirs []string
	for i := range 40 {
		tenant, user := []string{"acme", "globex"}[i/13%2], []string{"ann", "bob", "eve"}[i%3]
		ours = append(ours, ask(s.RateLimit[0].Ready.Address, tenant, user).String())
		theirs = append(theirs, ask(reference, tenant, user).String())
	}
	if !slices.Equal(ours, theirs) {
		t.Errorf("ours   %v\ntheirs %v", ours, theirs)
	}
	if !slices.Contains(ours, "OVER_LIMIT") || !slices.Contains(ours, "OK") {
		t.Errorf("the sequence proves nothing: %v", ours)
	}
}

// startReference builds the reference server once (a module of its own, kept
// in .tools) and starts it; it answers as soon as its first config is there.
func startReference(t *testing.T, s *harness.Stack, redis *harness.Redis) string {
	t.Helper()
	binary := filepath.Join(harness.Root(t), ".tools", "ratelimit-oracle")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".")
	build.Dir = filepath.Join(harness.Root(t), "e2e", "ratelimit-oracle")
	build.Env = append(os.Environ(), "GOFLAGS=-mod=readonly")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the reference limiter: %v\n%s", err, out)
	}
	port := func() string {
		address := harness.FreeAddress(t)
		return address[len("127.0.0.1:"):]
	}
	at, err := url.Parse(redis.URL)
	if err != nil {
		t.Fatal(err)
	}
	grpcPort := port()
	harness.Start(t, harness.Command{Name: "reference", Path: binary, Dir: harness.TempDir(t), Env: []string{
		"CONFIG_TYPE=GRPC_XDS_SOTW", "CONFIG_GRPC_XDS_SERVER_URL=" + s.XDS.Ready.Address, "CONFIG_GRPC_XDS_NODE_ID=reference",
		"CONFIG_GRPC_XDS_SERVER_CONNECT_RETRY_INTERVAL=100ms", "XDS_CLIENT_BACKOFF_INITIAL_INTERVAL=100ms", "XDS_CLIENT_BACKOFF_MAX_INTERVAL=1s",
		"GRPC_HOST=127.0.0.1", "GRPC_PORT=" + grpcPort, "HOST=127.0.0.1", "PORT=" + port(), "DEBUG_HOST=127.0.0.1", "DEBUG_PORT=" + port(),
		"REDIS_SOCKET_TYPE=tcp", "REDIS_URL=" + at.Host, "HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED=true",
		"STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT=true", "EXPIRATION_JITTER_MAX_SECONDS=0", "USE_STATSD=false", "DISABLE_STATS=true", "LOG_LEVEL=warn",
	}})
	harness.AwaitListening(t, "127.0.0.1:"+grpcPort)
	return "127.0.0.1:" + grpcPort
}
