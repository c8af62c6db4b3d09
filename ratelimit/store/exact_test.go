package store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tollgate/ratelimit/engine"
	"tollgate/ratelimit/store"
	"tollgate/ratelimit/store/redistest"
)

// limiters returns n stores that share a Redis and know of each other.
func limiters(t *testing.T, n int, url string, patience time.Duration) []*store.Failover {
	t.Helper()
	all := make([]*store.Failover, n)
	for i := range all {
		r, err := store.NewRedis(store.RedisConfig{URL: url, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		if _, err := r.Beat(context.Background()); err != nil {
			t.Fatal(err)
		}
		all[i] = failoverWith(t, r, store.FailoverConfig{Patience: patience})
	}
	return all
}

// load has callers ask limiters in turn, each until stop ends, and returns how
// many requests were admitted.
func load(t *testing.T, callers int, all []*store.Failover, cell engine.Cell, stop <-chan struct{}) (wait func() int64) {
	t.Helper()
	var admitted atomic.Int64
	var group sync.WaitGroup
	for caller := range callers {
		group.Go(func() {
			for i := caller; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				readings, err := all[i%len(all)].Take(context.Background(), time.Now(), []engine.Cell{cell})
				switch {
				case errors.Is(err, store.ErrRefused):
				case err != nil:
					t.Error(err)
				case readings[0].Allowed:
					admitted.Add(1)
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	return func() int64 {
		group.Wait()
		return admitted.Load()
	}
}

// awayFromMidnight keeps a test of a day's window from crossing into the next.
func awayFromMidnight(t testing.TB) {
	t.Helper()
	if left := 24*time.Hour - time.Since(time.Now().Truncate(24*time.Hour)); left < 15*time.Second {
		time.Sleep(left + time.Second)
	}
}

// TestExactUnderLoad: load alone is no reason to count twice: 2,000 callers at
// once, with a Redis that is well, get what the limit says and no more.
func TestExactUnderLoad(t *testing.T) {
	awayFromMidnight(t)
	for _, n := range []int{1, 2} {
		t.Run(fmt.Sprint(n, " limiters"), func(t *testing.T) {
			server := redistest.Start(t)
			// The tests of this machine may leave a trip's goroutine aside for longer
			// than a caller is patient; that is not what is shown here.
			all := limiters(t, n, server.URL, 5*time.Second)
			cell := engine.Cell{Key: "load", Rate: fixed(t, 5000, 24*time.Hour), Cost: 1}
			stop := make(chan struct{})
			admitted := load(t, 2000, all, cell, stop)
			time.Sleep(1500 * time.Millisecond)
			close(stop)
			if got := admitted(); got != 5000 {
				t.Errorf("%d admitted of 5,000", got)
			}
			for i, f := range all {
				if f.Degraded() {
					t.Errorf("limiter %d gave Redis up", i)
				}
			}
		})
	}
}

// TestStalledRedis: a Redis that hangs for a moment, again and again, hands out
// nothing twice and loses nothing: what was counted without it is booked when
// it goes on.
func TestStalledRedis(t *testing.T) {
	awayFromMidnight(t)
	for _, mode := range []engine.OnError{engine.Local, engine.Closed} {
		t.Run(map[engine.OnError]string{engine.Local: "local", engine.Closed: "closed"}[mode], func(t *testing.T) {
			const limit = 4000
			server := redistest.Start(t)
			all := limiters(t, 1, server.URL, 0)
			cell := engine.Cell{Key: "stall", Rate: fixed(t, limit, 24*time.Hour), Cost: 1, OnError: mode}
			stop := make(chan struct{})
			admitted := load(t, 20, all, cell, stop)
			for _, stall := range []time.Duration{10, 25, 50, 100, 200} {
				time.Sleep(50 * time.Millisecond)
				server.Freeze(t)
				time.Sleep(stall * time.Millisecond)
				server.Thaw(t)
			}
			peek := cell
			peek.Cost, peek.OnError = 0, engine.Local
			await(t, "the limit is never spent", func() bool { return !take(t, all[0], peek).Allowed })
			server.Freeze(t) // and once more now that the limit is spent
			time.Sleep(200 * time.Millisecond)
			server.Thaw(t)
			time.Sleep(50 * time.Millisecond)
			close(stop)
			if got := admitted(); got != limit {
				t.Errorf("%d admitted of %d", got, limit)
			}
		})
	}
}

// TestStallOfASpentLimit: two limiters, a limit that is used up, and hiccups of
// Redis: nothing more is admitted.
func TestStallOfASpentLimit(t *testing.T) {
	awayFromMidnight(t)
	server := redistest.Start(t)
	all := limiters(t, 2, server.URL, 0)
	cell := engine.Cell{Key: "spent", Rate: fixed(t, 100, 24*time.Hour), Cost: 1}
	for i := range 110 {
		take(t, all[i%2], cell)
	}
	stop := make(chan struct{})
	admitted := load(t, 50, all, cell, stop)
	for _, stall := range []time.Duration{10, 25, 50, 200} {
		server.Freeze(t)
		time.Sleep(stall * time.Millisecond)
		server.Thaw(t)
		time.Sleep(50 * time.Millisecond)
	}
	close(stop)
	if got := admitted(); got != 0 {
		t.Errorf("%d admitted beyond a spent limit", got)
	}
}

// TestOutageIsShared: while Redis is away, two limiters together admit what was
// left, and Redis is told afterwards.
func TestOutageIsShared(t *testing.T) {
	awayFromMidnight(t)
	server := redistest.Start(t)
	all := limiters(t, 2, server.URL, 0)
	await(t, "the limiters do not know each other", func() bool {
		return server.Client.ZCard(context.Background(), store.KeyPrefix+"limiters").Val() == 2
	})
	time.Sleep(1100 * time.Millisecond) // a beat of each
	rates := map[string]engine.Rate{"fixed": fixed(t, 100, 24*time.Hour), "gcra": gcra(t, 100, 24*time.Hour, 100)}
	for name, rate := range rates {
		for i := range 40 {
			take(t, all[i%2], engine.Cell{Key: name, Rate: rate, Cost: 1})
		}
	}
	server.Freeze(t)
	admitted := map[string]int{}
	for i := range 200 {
		for name, rate := range rates {
			if take(t, all[i%2], engine.Cell{Key: name, Rate: rate, Cost: 1}).Allowed {
				admitted[name]++
			}
		}
	}
	// Each knows what it read last: one of them a request ago.
	for name, n := range admitted {
		if n < 58 || n > 61 {
			t.Errorf("%s: %d admitted without Redis of 60 that were left", name, n)
		}
	}
	server.Thaw(t)
	for name, rate := range rates {
		asked := engine.Cell{Key: name, Rate: rate}
		await(t, name+": what was counted in the outage is not booked", func() bool {
			return take(t, newRedis(t, server.URL), asked).Remaining <= 2
		})
	}
}

// TestRedisKilled: a Redis that dies and comes back empty is used again, with
// what was counted meanwhile.
func TestRedisKilled(t *testing.T) {
	awayFromMidnight(t)
	server := redistest.Start(t)
	f := limiters(t, 1, server.URL, 0)[0]
	cell := engine.Cell{Key: "killed", Rate: fixed(t, 1000, 24*time.Hour), Cost: 1}
	take(t, f, cell)
	server.Kill()
	begin := time.Now()
	for range 300 {
		take(t, f, cell)
	}
	if took := time.Since(begin); took > 500*time.Millisecond || !f.Degraded() {
		t.Errorf("300 requests took %s without Redis; degraded %v", took, f.Degraded())
	}
	server.Restart(t)
	await(t, "Redis is back and not used", func() bool { return !f.Degraded() })
	await(t, "what was counted meanwhile is not booked", func() bool {
		cell.Cost = 0
		return take(t, newRedis(t, server.URL), cell).Remaining == 700
	})
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for begin := time.Now(); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > 5*time.Second {
			t.Fatal(what)
		}
	}
}

// TestFrozenWithoutTraffic: a Redis that hangs shows although nobody asks it.
func TestFrozenWithoutTraffic(t *testing.T) {
	server := redistest.Start(t)
	f := limiters(t, 1, server.URL, 0)[0]
	take(t, f, engine.Cell{Key: "k", Rate: fixed(t, 10, time.Hour), Cost: 1})
	time.Sleep(1100 * time.Millisecond) // a beat
	server.Freeze(t)
	begin := time.Now()
	await(t, "nobody notices", f.Degraded)
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("it took %s: a beat a second, a second to wait for its answer", took)
	}
	server.Thaw(t)
	await(t, "it is back and not used", func() bool { return !f.Degraded() })
}

// TestLostReplyCountsOnce: a command whose reply is lost has been counted, so
// it is not sent again: a proxy executes and drops the reply.
func TestLostReplyCountsOnce(t *testing.T) {
	awayFromMidnight(t)
	server := redistest.Start(t)
	var drop atomic.Bool
	address := dropper(t, strings.TrimPrefix(server.URL, "redis://"), &drop)
	r := newRedis(t, "redis://"+address)
	cell := engine.Cell{Key: "once", Rate: fixed(t, 100, 24*time.Hour), Cost: 1}
	take(t, r, cell)
	drop.Store(true)
	if _, err := r.Take(context.Background(), time.Time{}, []engine.Cell{cell}); err == nil {
		t.Fatal("no error although the reply was lost")
	}
	cell.Cost = 0
	if got := take(t, newRedis(t, server.URL), cell).Remaining; got != 98 {
		t.Errorf("%d of 100 left after two requests", got)
	}
}

// dropper passes connections on to a server. While drop is set, a connection
// ends where a reply to a script would begin.
func dropper(t *testing.T, server string, drop *atomic.Bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		group.Wait()
	})
	group.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() { pass(client, server, drop) })
		}
	})
	return l.Addr().String()
}

func pass(client net.Conn, server string, drop *atomic.Bool) {
	defer client.Close()
	upstream, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	var group sync.WaitGroup
	group.Go(func() {
		_, _ = io.Copy(upstream, client)
		upstream.Close()
	})
	buffer := make([]byte, 4096)
	for {
		n, err := upstream.Read(buffer)
		if err != nil || drop.Load() && buffer[0] == '$' {
			break
		}
		if _, err := client.Write(buffer[:n]); err != nil {
			break
		}
	}
	client.Close()
	upstream.Close()
	group.Wait()
}
