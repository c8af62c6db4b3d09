package push_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"google.golang.org/genproto/googleapis/rpc/status"

	"tollgate/xds/ledger"
	"tollgate/xds/push"
	"tollgate/xds/release"
)

// nobody admits everybody as nobody in particular, as without credentials.
func nobody(context.Context, *corev3.Node) (push.Client, error) { return push.Client{}, nil }

// TestAnotherSilencesNobody: a client that calls itself like the proxy and
// refuses what it runs keeps nothing from it, also not a return to what was
// refused, whether anybody is authenticated or not.
func TestAnotherSilencesNobody(t *testing.T) {
	base := slices.Concat(cluster("a", 1), cluster("b", 1), of(listener("http")))
	protected, open := made(t, base, of(routes("r", "a"))), made(t, base, of(routes("r", "b")))
	for name, admit := range map[string]push.Admit{"nobody is authenticated": nobody, "both are the same": byNode} {
		t.Run(name, func(t *testing.T) {
			s := start(t, push.Config{Admit: admit})
			c := settle(t, s, "edge")
			rogue := meet(t, s, "edge")
			rogue.subscribe(release.TypeRoute, "http")
			rogue.nack(rogue.next(release.TypeRoute), "no")
			within(t, 5*time.Second, "refused by one of two", func() bool {
				return slices.ContainsFunc(s.book.Lines(), func(l ledger.Line) bool { return l.State == ledger.Refused && l.Streams == 2 })
			})
			s.Publish(open)
			c.take(release.TypeRoute, "http")
			rogue.leave()
			s.Publish(protected)
			if got := targets(t, c.take(release.TypeRoute, "http")); got["r"] != "a" {
				t.Fatalf("runs %v", got)
			}
		})
	}
}

// TestFreshProcess: what a proxy refused, perhaps because its port was taken,
// its successor gets, though it calls itself the same and is the same identity.
func TestFreshProcess(t *testing.T) {
	s := start(t, push.Config{})
	s.Publish(made(t, cluster("a", 1), of(listener("http"), routes("r", "a"))))
	for range 2 {
		c := meet(t, s, "edge")
		c.subscribe(release.TypeCluster)
		c.take(release.TypeCluster, "a")
		c.take(release.TypeEndpoint, "a")
		c.subscribe(release.TypeListener)
		c.nack(c.next(release.TypeListener), "Error adding/updating listener(s) http: cannot bind '0.0.0.0:80': Address already in use")
		c.next(release.TypeRoute)
		within(t, 5*time.Second, "refused", func() bool { return s.state("listener") == ledger.Refused })
		c.leave()
		within(t, 5*time.Second, "gone", func() bool { return s.state("listener") == ledger.Gone })
	}
	again := meet(t, s, "edge")
	again.subscribe(release.TypeListener)
	again.take(release.TypeListener, "http")
}

// TestResend: an operator who mended what made a proxy refuse sends it again.
func TestResend(t *testing.T) {
	s := start(t, push.Config{})
	c := settle(t, s, "edge")
	s.Publish(made(t, cluster("a", 1), cluster("b", 1), of(listener("http"), routes("r", "b"))))
	c.nack(c.next(release.TypeRoute), "no")
	c.silence()
	if n := s.Resend("another"); n != 0 {
		t.Fatalf("%d streams of nobody", n)
	}
	c.silence()
	if n := s.Resend("edge"); n != 1 {
		t.Fatalf("%d streams", n)
	}
	c.take(release.TypeRoute, "http")
	within(t, 5*time.Second, "taken", func() bool { return s.state("routeconfiguration") == ledger.Synced })
	c.silence()
}

// TestNoEmptyAnswerDuringTheBarrier: while the servers of policies take the
// first release, a proxy that comes back is told nothing, not that it has no
// listeners.
func TestNoEmptyAnswerDuringTheBarrier(t *testing.T) {
	s := start(t, push.Config{Barrier: 600 * time.Millisecond})
	decider := s.connect(t, "extauthz")
	decider.subscribe(release.TypePolicy)
	c := s.connect(t, "edge")
	c.resume(release.TypeCluster, map[string]string{"a": "old"})
	c.resume(release.TypeListener, map[string]string{"http": "old"})
	w := s.connectWhole(t)
	w.send(&discoveryv3.DiscoveryRequest{TypeUrl: release.TypeListener, VersionInfo: "old"})
	w.send(&discoveryv3.DiscoveryRequest{TypeUrl: release.TypeCluster, VersionInfo: "old"})
	// No answer comes before a release, so nothing tells that all this was read.
	time.Sleep(500 * time.Millisecond)
	s.Publish(made(t, cluster("a", 1), of(listener("http"), routes("r", "a"), policy("p"))))
	decider.next(release.TypePolicy) // answered by nobody: the barrier holds
	c.silence()
	w.silence()
	for {
		r := <-c.in
		if r == nil || len(r.GetResources()) == 0 && r.GetTypeUrl() != release.TypeRuntime {
			t.Fatalf("%s without anything", r.GetTypeUrl())
		}
		if r.GetTypeUrl() == release.TypeListener {
			return
		}
	}
}

// TestDrain: a cluster that nobody names any more stays for its time.
func TestDrain(t *testing.T) {
	t.Parallel()
	s := start(t, push.Config{Drain: 700 * time.Millisecond})
	c := settle(t, s, "one")
	s.Publish(made(t, cluster("b", 1), of(listener("http"), routes("r", "b"))))
	c.take(release.TypeRoute, "http")
	left := time.Now()
	c.gone(release.TypeCluster, "a")
	if after := time.Since(left); after < 600*time.Millisecond {
		t.Fatalf("gone %s after the last route left it", after)
	}
}

// TestRefusedRemoval: a removal that was refused along with something bad is
// made again.
func TestRefusedRemoval(t *testing.T) {
	s := start(t, push.Config{Drain: 50 * time.Millisecond})
	c := settle(t, s, "one")
	s.Publish(made(t, cluster("a", 1), cluster("b", 1), of(listener("http"), listener("old"), routes("r", "a"))))
	c.take(release.TypeListener, "old")
	s.Publish(made(t, cluster("a", 1), cluster("b", 1), of(listener("http"), listener("bad"), routes("r", "a"))))
	both := c.next(release.TypeListener)
	if fmt.Sprint(names(both), both.GetRemovedResources()) != "[bad] [old]" {
		t.Fatalf("got %v, removed %v", names(both), both.GetRemovedResources())
	}
	c.nack(both, "Error adding/updating listener(s) bad: no")
	c.gone(release.TypeListener, "old")
	c.silence()
}

// TestWholeRefusedStaysRefused: state of the world: refused, another taken, the
// refused one in force again: it is not sent, and that shows.
func TestWholeRefusedStaysRefused(t *testing.T) {
	s := start(t, push.Config{})
	bad, good := made(t, of(limits(ratelimitv3.RateLimitUnit_SECOND))), made(t, of(limits(ratelimitv3.RateLimitUnit_MINUTE)))
	s.Publish(bad)
	c := s.connectWhole(t)
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: release.TypeRateLimit})
	refused := c.next(release.TypeRateLimit, 1)
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: release.TypeRateLimit, ResponseNonce: refused.GetNonce(), ErrorDetail: &status.Status{Code: 3, Message: "no"}})
	within(t, 5*time.Second, "refused", func() bool { return s.state("ratelimitconfig") == ledger.Refused })
	s.Publish(good)
	taken := c.next(release.TypeRateLimit, 1)
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: release.TypeRateLimit, VersionInfo: taken.GetVersionInfo(), ResponseNonce: taken.GetNonce()})
	within(t, 5*time.Second, "taken", func() bool { return s.state("ratelimitconfig") == ledger.Synced })
	s.Publish(bad)
	c.silence()
	if s.state("ratelimitconfig") != ledger.Refused {
		t.Fatalf("%+v", s.book.Lines())
	}
}
