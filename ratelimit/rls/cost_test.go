package rls_test

import (
	"context"
	"testing"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"tollgate/internal/cost"
	"tollgate/ratelimit/rls"
	"tollgate/ratelimit/store"
	"tollgate/ratelimit/store/redistest"
)

// TestCost gates what one decision costs: allocations and bytes over either
// store, and trips to Redis.
func TestCost(t *testing.T) {
	server := redistest.Start(t)
	redis, err := store.NewRedis(store.RedisConfig{URL: server.URL, Log: discard()})
	if err != nil {
		t.Fatal(err)
	}
	defer redis.Close()
	shared := store.NewFailover(store.FailoverConfig{Primary: redis, Local: store.NewMemory(0), Patience: 5 * time.Second, Log: discard()})
	spent := rule("spent", 0, "day", 24*time.Hour)
	for _, test := range []struct {
		what     string
		store    rls.Store
		req      *rlsv3.RateLimitRequest
		bound    cost.Cost
		perTrips int // requests of which one may make a trip
	}{
		{"memory, one descriptor", store.NewMemory(0), benchRequest(1), cost.Cost{Allocs: 10, Bytes: 700}, 0},
		{"memory, four descriptors", store.NewMemory(0), benchRequest(4), cost.Cost{Allocs: 14, Bytes: 1_700}, 0},
		{"memory, refused", store.NewMemory(0), request("spent"), cost.Cost{Allocs: 9, Bytes: 680}, 0},
		{"redis, one descriptor", shared, benchRequest(1), cost.Cost{Allocs: 48, Bytes: 3_300}, 1},
		{"redis, four descriptors", shared, benchRequest(4), cost.Cost{Allocs: 61, Bytes: 5_300}, 1},
		{"redis, refused", shared, request("spent"), cost.Cost{Allocs: 10, Bytes: 700}, 100},
	} {
		s := rls.New(test.store, &refusals{}, time.Now) // Redis goes by the real clock
		s.SetTable(tableOf(t, append(benchRules(), spent)...))
		const runs = 500
		ask(t, s, test.req) // a counter of one's own, a connection, a script
		before := shared.Trips()
		got := cost.Of(runs, func() {
			if _, err := s.ShouldRateLimit(context.Background(), test.req); err != nil {
				t.Fatal(err)
			}
		})
		cost.AtMost(t, test.what, got, test.bound)
		most := uint64(0)
		if test.perTrips > 0 {
			most = (runs+1)/uint64(test.perTrips) + 1 // a trip is counted when it has answered
		}
		if trips := shared.Trips() - before; trips > most {
			t.Errorf("%s: %d trips for %d requests, at most %d", test.what, trips, runs+1, most)
		}
	}
}
