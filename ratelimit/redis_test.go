package ratelimit_test

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	limitsv1 "tollgate/api/limits/v1"
	"tollgate/ratelimit/store/redistest"
)

// TestExactOverTwoLimiters: 32 clients on two limiters with one Redis, per
// hour: exactly the limit is admitted.
func TestExactOverTwoLimiters(t *testing.T) {
	awayFromTheHour(t)
	redis := redistest.Start(t)
	cp := startControlPlane(t)
	hourly := rule("gateway/all", 500)
	hourly.Window, hourly.Unit = durationpb.New(time.Hour), "hour"
	cp.set(t, "gateway", hourly)
	limiters := []*limiter{startLimiter(t, cp.address, redis.URL), startLimiter(t, cp.address, redis.URL)}
	for _, l := range limiters {
		await(t, "never ready", func() bool { return l.server.Ready() == nil })
	}
	var admitted, refused atomic.Int64
	var wg sync.WaitGroup
	for client := range 32 {
		wg.Go(func() {
			for range 25 {
				switch code, err := limiters[client%2].ask("gateway/all"); {
				case err != nil:
					t.Error(err)
				case code == rlsv3.RateLimitResponse_OK:
					admitted.Add(1)
				default:
					refused.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if admitted.Load() != 500 || refused.Load() != 300 {
		t.Fatalf("%d admitted, %d refused; want 500, 300", admitted.Load(), refused.Load())
	}
}

// awayFromTheHour waits out the last seconds of an hour, in which a test would
// count in two windows.
func awayFromTheHour(t *testing.T) {
	t.Helper()
	if left := time.Hour - time.Since(time.Now().Truncate(time.Hour)); left < 5*time.Second {
		time.Sleep(left)
	}
}

// TestRedisLost: each on_error through the whole server, and back.
func TestRedisLost(t *testing.T) {
	redis := redistest.Start(t)
	cp := startControlPlane(t)
	local, open, closed := rule("local", 3), rule("open", 1), rule("closed", 100)
	open.OnError, closed.OnError = limitsv1.Rule_OPEN, limitsv1.Rule_CLOSED
	cp.set(t, "gateway", local, open, closed)
	lim := startLimiter(t, cp.address, redis.URL)
	await(t, "never ready", func() bool { return lim.server.Ready() == nil })
	if _, err := lim.ask("closed"); err != nil {
		t.Fatal(err)
	}
	redis.Kill()
	for range 2 {
		if got, err := lim.ask("open"); got != rlsv3.RateLimitResponse_OK {
			t.Errorf("open: %s, %v", got, err)
		}
		if _, err := lim.ask("closed"); status.Code(err) != codes.Unavailable {
			t.Errorf("closed: %v, want UNAVAILABLE", err)
		}
	}
	for i, want := range []rlsv3.RateLimitResponse_Code{1, 1, 1, 2} {
		if got, err := lim.ask("local"); got != want {
			t.Errorf("local %d: %s, %v", i, got, err)
		}
	}
	if lim.server.Ready() != nil || !lim.serving(t) {
		t.Error("a lost Redis made the limiter unready: it still decides")
	}
	await(t, "a lost Redis goes unnoticed", func() bool { return len(lim.server.Faults()) > 0 })
	if faults := lim.server.Faults(); len(faults) != 1 || !strings.Contains(faults[0], "--redis-url") {
		t.Errorf("faults %q", faults)
	}
	redis.Restart(t)
	await(t, "Redis is back and not used", func() bool {
		_, err := lim.ask("closed")
		return err == nil
	})
	// What was counted in memory is booked in the Redis that is back, empty.
	if got, err := lim.ask("local"); got != rlsv3.RateLimitResponse_OVER_LIMIT {
		t.Errorf("local, all used up in the outage: %s, %v", got, err)
	}
}
