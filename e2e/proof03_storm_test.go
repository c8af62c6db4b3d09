package e2e_test

import (
	"fmt"
	"math"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
)

// storm is a gateway with one limit of 1,000 a day.
func storm(onError string) string {
	return head + fmt.Sprintf(`
rate_limit: [{name: all, limit: 1000, per: day, on_error: %s}]
upstreams: [{name: up, endpoints: ["${up}"]}]
routes: [{name: main, match: {path: {prefix: /}}, auth: public, upstream: up}]
`, onError)
}

// TestProof03LimitInAStorm: 600 connections that go on asking, on a machine that
// has no processor time left, with a Redis that hangs for a moment, first
// while the limit is not spent: what reaches the upstream is what the limit says.
func TestProof03LimitInAStorm(t *testing.T) {
	for _, test := range []struct {
		onError     string
		least, most int64
	}{
		{"closed", 950, 1000},
		{"local", 950, 1050},
	} {
		t.Run(test.onError, func(t *testing.T) {
			awayFromMidnight(t)
			redis := harness.StartRedis(t)
			up := harness.NewUpstream(t, "up")
			s := harness.NewStack(t, harness.Options{
				Gateway: storm(test.onError), Vars: map[string]string{"up": up.Address}, RedisURL: redis.URL, Workers: 2,
			})
			// Envoy's connections to the limiter are made in peace.
			warm := traffic.Run(traffic.Load{Request: traffic.Request{URL: s.URL("/")}, Workers: 8, Count: 50})
			load := traffic.Start(traffic.Load{
				Request: traffic.Request{URL: s.URL("/")}, Workers: 600, Count: math.MaxInt, Client: traffic.NewClient(600), Timeout: 20 * time.Second,
			})
			// Redis hangs while there is something left to count, and after.
			var spent []int64
			for _, hang := range []struct {
				after int64
				lasts time.Duration
			}{{150, 50 * time.Millisecond}, {400, 200 * time.Millisecond}, {test.least, 200 * time.Millisecond}} {
				for begin := time.Now(); up.Count() < hang.after && time.Since(begin) < 10*time.Second; {
					time.Sleep(time.Millisecond)
				}
				redis.Signal(t, syscall.SIGSTOP)
				spent = append(spent, up.Count())
				time.Sleep(hang.lasts)
				redis.Signal(t, syscall.SIGCONT)
			}
			time.Sleep(2 * time.Second)
			r := load.Stop()
			r.Merge(warm)
			if spent[1] >= test.least {
				t.Errorf("%d were spent before Redis hung: nothing is shown", spent)
			}
			// A machine too busy for enough requests shows the upper bound only.
			if got := up.Count(); got > test.most || got < test.least && r.Sent > 3000 {
				t.Errorf("%d requests reached the upstream (%d as Redis hung), want %d to %d; %s", got, spent, test.least, test.most, r)
			}
			t.Logf("%d as Redis hung, %d in all; %s", spent, up.Count(), r)
		})
	}
}

// awayFromMidnight keeps a test of a day's window from crossing into the next.
func awayFromMidnight(t *testing.T) {
	t.Helper()
	if left := time.Until(time.Now().Truncate(24 * time.Hour).Add(24 * time.Hour)); left < 30*time.Second {
		time.Sleep(left + time.Second)
	}
}
