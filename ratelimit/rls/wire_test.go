package rls_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/proto"

	limitsv1 "tollgate/api/limits/v1"
	"tollgate/ratelimit/rls"
	"tollgate/ratelimit/store"
	"tollgate/ratelimit/store/redistest"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func by(names ...string) func(*limitsv1.Rule) {
	return func(r *limitsv1.Rule) { r.By = names }
}

// FuzzShouldRateLimit: any bytes that are a request get an answer that says OK
// or OVER_LIMIT, or an error; never both, never neither.
func FuzzShouldRateLimit(f *testing.F) {
	for _, req := range []*rlsv3.RateLimitRequest{
		{}, request("r"), request("r tenant=acme user=bob", "plan/0 plan=pro tenant=acme"), request("plan/0"), request("new"),
	} {
		wire, err := proto.Marshal(req)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		req := &rlsv3.RateLimitRequest{}
		if proto.Unmarshal(wire, req) != nil {
			return
		}
		s, _ := service(
			t, store.NewMemory(0), rule("r", 2, "hour", time.Hour, by("tenant", "user")),
			rule("p", 2, "hour", time.Hour, func(r *limitsv1.Rule) { r.Slot, r.Plan, r.By = "plan/0", "pro", []string{"tenant"} }),
		)
		for range 3 {
			answer, err := s.ShouldRateLimit(context.Background(), req)
			if (answer == nil) == (err == nil) {
				t.Fatalf("%v, %v", answer, err)
			}
			if answer == nil {
				continue
			}
			neverUnknown(t, answer)
			if len(answer.Statuses) != len(req.Descriptors) {
				t.Fatalf("%d statuses for %d descriptors", len(answer.Statuses), len(req.Descriptors))
			}
		}
	})
}

func benchRules() []*limitsv1.Rule {
	return []*limitsv1.Rule{
		rule("route/shop/orders/0", 1e12, "minute", time.Minute, by("tenant", "user")),
		rule("gateway/all", 1e12, "second", time.Second),
		rule("gateway/per-address", 1e9, "second", time.Second, gcra, by("remote_address")),
		rule("plan/pro/0", 1e12, "month", 720*time.Hour, func(r *limitsv1.Rule) { r.Slot, r.Plan, r.By = "plan/0/tenant", "pro", []string{"tenant"} }),
	}
}

func benchRequest(descriptors int) *rlsv3.RateLimitRequest {
	return request([]string{
		"route/shop/orders/0 tenant=acme user=alice@example.com", "gateway/all",
		"gateway/per-address remote_address=203.0.113.77", "plan/0/tenant plan=pro tenant=acme",
	}[:descriptors]...)
}

func BenchmarkShouldRateLimit(b *testing.B) {
	redis, err := store.NewRedis(store.RedisConfig{URL: redistest.Start(b).URL, OpTimeout: time.Second})
	if err != nil {
		b.Fatal(err)
	}
	defer redis.Close()
	for name, counters := range map[string]rls.Store{"memory": store.NewMemory(0), "redis": redis} {
		for _, n := range []int{1, 4} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				s, _ := service(b, counters, benchRules()...)
				req := benchRequest(n)
				b.ReportAllocs()
				for b.Loop() {
					if _, err := s.ShouldRateLimit(context.Background(), req); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

var _ rlsv3.RateLimitServiceServer = (*rls.Service)(nil)
