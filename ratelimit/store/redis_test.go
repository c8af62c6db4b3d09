package store_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tollgate/ratelimit/engine"
	"tollgate/ratelimit/store"
	"tollgate/ratelimit/store/redistest"
)

func newRedis(t testing.TB, url string) *store.Redis {
	t.Helper()
	r, err := store.NewRedis(store.RedisConfig{URL: url, OpTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// TestRedisExact: two limiters, 32 callers, Redis's own clock: exactly the
// limit is admitted.
func TestRedisExact(t *testing.T) {
	server := redistest.Start(t)
	limiters := []*store.Redis{newRedis(t, server.URL), newRedis(t, server.URL)}
	for _, rate := range []engine.Rate{fixed(t, 1000, 30*24*time.Hour), gcra(t, 1000, 30*24*time.Hour, 1000)} {
		cell := engine.Cell{Key: fmt.Sprint("exact/", rate.Algorithm), Rate: rate, Cost: 1}
		var admitted, refused atomic.Int64
		var wg sync.WaitGroup
		for caller := range 32 {
			wg.Go(func() {
				for range 50 {
					r, err := limiters[caller%2].Take(context.Background(), time.Time{}, []engine.Cell{cell})
					if err != nil {
						t.Error(err)
						return
					}
					if r[0].Allowed {
						admitted.Add(1)
					} else {
						refused.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if admitted.Load() != 1000 || refused.Load() != 600 {
			t.Errorf("%s: %d admitted, %d refused; want 1000, 600", cell.Key, admitted.Load(), refused.Load())
		}
	}
}

// TestRedisTTL: every key has a time to live, a second longer than its counter
// means something.
func TestRedisTTL(t *testing.T) {
	server := redistest.Start(t)
	r := newRedis(t, server.URL)
	ctx := context.Background()
	longest := map[string]time.Duration{}
	for name, cell := range map[string]struct {
		rate engine.Rate
		cost uint64
		ttl  time.Duration
	}{
		"short":  {fixed(t, 5, 10*time.Millisecond), 1, 10 * time.Millisecond},
		"minute": {fixed(t, 5, time.Minute), 1, time.Minute},
		"month":  {fixed(t, 5, 30*24*time.Hour), 5, 30 * 24 * time.Hour},
		"gcra":   {gcra(t, 60, time.Minute, 10), 10, 10 * time.Second},
	} {
		longest[store.KeyPrefix+name] = cell.ttl + 1001*time.Millisecond
		for range 3 {
			if _, err := r.Take(ctx, time.Time{}, []engine.Cell{{Key: name, Rate: cell.rate, Cost: cell.cost}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	keys := server.Client.Keys(ctx, "*").Val()
	if len(keys) < 3 || len(keys) > 4 {
		t.Fatalf("keys %q", keys)
	}
	for _, key := range keys {
		ttl := server.Client.PTTL(ctx, key).Val()
		if ttl == -2 { // gone between KEYS and PTTL
			continue
		}
		if ttl < 0 || ttl > longest[key] || longest[key] == 0 {
			t.Errorf("%s: TTL %s, want at most %s", key, ttl, longest[key])
		}
	}
	if _, err := r.Take(ctx, time.Time{}, []engine.Cell{{Key: "asked", Rate: fixed(t, 5, time.Hour)}}); err != nil {
		t.Fatal(err)
	}
	if n := server.Client.Exists(ctx, store.KeyPrefix+"asked").Val(); n != 0 {
		t.Error("asking left a key")
	}
}

// TestRedisSurvives: foreign values and a lost script do not stop the limiter.
func TestRedisSurvives(t *testing.T) {
	server := redistest.Start(t)
	r := newRedis(t, server.URL)
	ctx := context.Background()
	cell := engine.Cell{Key: "k", Rate: fixed(t, 5, time.Hour), Cost: 1}
	tests := []struct {
		name string
		do   func() error
	}{
		{"garbage", func() error { return server.Client.Set(ctx, store.KeyPrefix+"k", "garbage", 0).Err() }},
		{"a list", func() error {
			server.Client.Del(ctx, store.KeyPrefix+"k")
			return server.Client.LPush(ctx, store.KeyPrefix+"k", "x").Err()
		}},
		{"script flush", func() error {
			server.Client.Del(ctx, store.KeyPrefix+"k")
			return server.Client.ScriptFlush(ctx).Err()
		}},
	}
	for _, test := range tests {
		if err := test.do(); err != nil {
			t.Fatal(err)
		}
		readings, err := r.Take(ctx, time.Time{}, []engine.Cell{cell})
		if err != nil || readings[0].Remaining != 4 {
			t.Errorf("%s: %+v, %v", test.name, readings, err)
		}
		if ttl := server.Client.PTTL(ctx, store.KeyPrefix+"k").Val(); ttl <= 0 {
			t.Errorf("%s: TTL %s", test.name, ttl)
		}
	}
}

// TestRedisTriesOnce: what fails is not sent again, for it may have counted.
func TestRedisTriesOnce(t *testing.T) {
	server := redistest.Start(t)
	r := newRedis(t, server.URL)
	ctx := context.Background()
	cell := engine.Cell{Key: "k", Rate: fixed(t, 5, time.Hour), Cost: 1}
	if _, err := r.Take(ctx, time.Time{}, []engine.Cell{cell}); err != nil {
		t.Fatal(err)
	}
	if err := server.Client.Do(ctx, "CONFIG", "RESETSTAT").Err(); err != nil {
		t.Fatal(err)
	}
	if err := server.Client.Do(ctx, "CONFIG", "SET", "maxmemory", "1", "maxmemory-policy", "noeviction").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Take(ctx, time.Time{}, []engine.Cell{cell}); err == nil {
		t.Fatal("no error from a Redis without memory")
	}
	stats := server.Client.Info(ctx, "commandstats").Val()
	once := regexp.MustCompile(`cmdstat_evalsha:(calls=1,.*rejected_calls=0|calls=0,.*rejected_calls=1),`)
	if !once.MatchString(stats) || strings.Contains(stats, "cmdstat_eval:") {
		t.Errorf("tried more than once:\n%s", stats)
	}
}

func TestRedisURL(t *testing.T) {
	for _, url := range []string{"redis://user:s3cret@host:port:x", "http://user:s3cret@host", "redis://:s3cret%zz@host", "redis://u:s3cret@h/notanumber"} {
		_, err := store.NewRedis(store.RedisConfig{URL: url})
		if err == nil {
			t.Errorf("%s accepted", url)
		} else if strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "--redis-url") {
			t.Errorf("%s: error %q", url, err)
		}
	}
}

func BenchmarkTake(b *testing.B) {
	server := redistest.Start(b)
	four := []engine.Cell{
		{Key: "gateway", Rate: fixed(b, 1e12, time.Hour), Cost: 1},
		{Key: "plan", Rate: gcra(b, 1e9, time.Second, 1e9), Cost: 1},
		{Key: "route", Rate: fixed(b, 1e12, time.Minute), Cost: 1},
		{Key: "user", Rate: fixed(b, 1e12, time.Second), Cost: 1},
	}
	for name, s := range map[string]store.Store{"memory": store.NewMemory(0), "redis": newRedis(b, server.URL)} {
		for _, n := range []int{1, 4} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				ctx, now := context.Background(), time.Now()
				for b.Loop() {
					if _, err := s.Take(ctx, now, four[:n]); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

var _ store.Store = (*store.Failover)(nil) // a Failover may stand where a store does
