package push_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tollgate/xds/ledger"
	"tollgate/xds/push"
	"tollgate/xds/release"
)

// gone takes a response that only removes.
func (c *client) gone(url string, want ...string) {
	c.t.Helper()
	r := c.next(url)
	if len(r.GetResources()) > 0 || !slices.Equal(r.GetRemovedResources(), want) {
		c.t.Fatalf("%s: got %v, removed %v, want %v removed", url, names(r), r.GetRemovedResources(), want)
	}
	c.ack(r)
}

// meet connects a client past its runtime request.
func meet(t *testing.T, s *server, id string) *client {
	t.Helper()
	c := s.connect(t, id)
	c.ack(c.next(release.TypeRuntime))
	return c
}

func unsubscribe(c *client, url string, names ...string) {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: url, ResourceNamesUnsubscribe: names})
}

func secret(name string) release.Object {
	return edge(release.TypeSecret, name, &tlsv3.Secret{Name: name})
}

func TestOneResourceAResponse(t *testing.T) {
	s := start(t, push.Config{})
	other := edge(release.TypeRoute, "two", &routev3.RouteConfiguration{Name: "two"})
	s.Publish(made(t, cluster("a", 1), cluster("b", 1), of(secret("s"), secret("t"), routes("r", "a"), other)))
	c := meet(t, s, "one")
	c.subscribe(release.TypeEndpoint, "a", "b")
	c.take(release.TypeEndpoint, "a")
	c.take(release.TypeEndpoint, "b")
	c.subscribe(release.TypeSecret, "s", "t")
	c.take(release.TypeSecret, "s")
	c.take(release.TypeSecret, "t")
	c.subscribe(release.TypeRoute, "http", "two")
	c.take(release.TypeRoute, "http")
	c.take(release.TypeRoute, "two")
	c.silence()
}

func TestEmptyReleaseIsAnswered(t *testing.T) {
	s := start(t, push.Config{})
	c := s.connect(t, "one")
	c.subscribe(release.TypeCluster)
	c.silence() // no release yet is not an empty one
	s.Publish(made(t))
	c.next(release.TypeRuntime)
	c.take(release.TypeCluster)
	c.subscribe(release.TypeListener)
	c.take(release.TypeListener)
	c.subscribe(release.TypePolicy)
	c.take(release.TypePolicy)
	c.subscribe(release.TypeRoute) // asks for none: an Envoy without listeners
	c.subscribe("type.googleapis.com/unheard.of")
	c.silence()
}

func TestUnknownNames(t *testing.T) {
	s := start(t, push.Config{})
	s.Publish(made(t, cluster("a", 1)))
	c := meet(t, s, "one")
	for _, url := range []string{release.TypeRoute, release.TypeSecret, release.TypeEndpoint} {
		c.subscribe(url, "http")
		c.gone(url, "http")
	}
	c.silence()
	s.Publish(made(t, cluster("a", 1), of(routes("r", "a"))))
	c.take(release.TypeRoute, "http")
	c.silence()
}

func TestNamesAndWildcard(t *testing.T) {
	s := start(t, push.Config{})
	s.Publish(made(t, cluster("a", 1), cluster("b", 1)))
	c := meet(t, s, "one")
	c.subscribe(release.TypeCluster, "b")
	c.take(release.TypeCluster, "b")
	c.take(release.TypeEndpoint, "b")
	c.subscribe(release.TypeCluster, "*")
	c.take(release.TypeCluster, "a")
	c.take(release.TypeEndpoint, "a")
	c.subscribe(release.TypeCluster, "b") // said again: it has lost it
	c.take(release.TypeCluster, "b")
	c.take(release.TypeEndpoint, "b")
	c.silence()
	unsubscribe(c, release.TypeCluster, "*")
	c.silence()
	s.Publish(made(t, cluster("a", 2), cluster("b", 1), cluster("c", 1)))
	c.silence() // what only the wildcard had is nothing to it any more
	s.Publish(made(t, cluster("a", 2), cluster("b", 2), cluster("c", 1)))
	c.take(release.TypeCluster, "b")
	c.take(release.TypeEndpoint, "b")
	c.silence()
}

func TestNewClusterThatIsRefusedIsTakenBack(t *testing.T) {
	s := start(t, push.Config{})
	c := settle(t, s, "one")
	s.Publish(made(t, cluster("a", 1), cluster("b", 1), cluster("n", 1), of(listener("http"), routes("r", "a"))))
	cds := c.next(release.TypeCluster)
	c.take(release.TypeEndpoint, "n")
	c.nack(cds, "whatever")
	c.gone(release.TypeCluster, "n")
	c.silence()
	s.Publish(made(t, cluster("a", 1), cluster("b", 1), cluster("n", 2), of(listener("http"), routes("r", "a"))))
	c.take(release.TypeCluster, "n")
}

func TestLastGoodClusterComesBack(t *testing.T) {
	for name, connect := range map[string]func(*testing.T, *server) *client{
		"on one stream": func(t *testing.T, s *server) *client { return settle(t, s, "one") },
		"resumed":       resumed,
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, push.Config{})
			c := connect(t, s)
			good := made(t, cluster("a", 1))
			s.Publish(made(t, cluster("a", 2), cluster("b", 1), of(listener("http"), routes("r", "a"))))
			cds := c.next(release.TypeCluster)
			c.take(release.TypeEndpoint, "a")
			c.nack(cds, "Error adding/updating cluster(s) a: ring hash")
			r := c.take(release.TypeCluster, "a")
			if r.GetResources()[0].GetVersion() != good.Get(release.Edge, release.TypeCluster, "a").Version {
				t.Fatal("not the last good one")
			}
			c.take(release.TypeEndpoint, "a")
			c.silence()
			if s.state("cluster") != ledger.Refused {
				t.Fatalf("%+v", s.book.Lines())
			}
		})
	}
}

func (s *server) state(kind string) ledger.State {
	for _, l := range s.book.Lines() {
		if l.Type == kind {
			return l.State
		}
	}
	return ""
}

// resumed is a proxy that ran the release of settle before this stream.
func resumed(t *testing.T, s *server) *client {
	t.Helper()
	r := made(t, cluster("a", 1), cluster("b", 1), of(listener("http"), routes("r", "a")))
	s.Publish(r)
	c := meet(t, s, "one")
	for _, url := range []string{release.TypeCluster, release.TypeEndpoint, release.TypeListener, release.TypeRoute} {
		held := map[string]string{}
		for _, name := range r.Names(release.Edge, url) {
			held[name] = r.Get(release.Edge, url, name).Version
		}
		if url == release.TypeCluster || url == release.TypeListener {
			c.resume(url, held)
		} else {
			c.resume(url, held, r.Names(release.Edge, url)...)
		}
	}
	c.silence()
	return c
}

// TestResumedProxyIsKnown: what a proxy brings along and we serve is as good as
// sent: routes wait for new clusters only, and old clusters go.
func TestResumedProxyIsKnown(t *testing.T) {
	s := start(t, push.Config{Hold: 5 * time.Second, Drain: 50 * time.Millisecond})
	c := resumed(t, s)
	s.Publish(made(t, cluster("b", 1), cluster("n", 1), of(listener("http"), routes("r", "n", "s", "b"))))
	cds := c.next(release.TypeCluster)
	c.take(release.TypeEndpoint, "n")
	if got := targets(t, c.take(release.TypeRoute, "http")); fmt.Sprint(got) != "map[r:a s:b]" {
		t.Fatalf("while n warms: %v", got)
	}
	c.ack(cds)
	c.take(release.TypeRoute, "http")
	c.gone(release.TypeCluster, "a")
}

// TestStaleClusterStaysUnderItsRoutes: a proxy that comes back to a newer
// release keeps its old clusters until it has taken the new routes.
func TestStaleClusterStaysUnderItsRoutes(t *testing.T) {
	s := start(t, push.Config{Drain: 50 * time.Millisecond})
	s.Publish(made(t, cluster("b", 1), of(listener("http"), routes("r", "b"))))
	c := meet(t, s, "one")
	c.resume(release.TypeCluster, map[string]string{"a": "old"})
	cds := c.next(release.TypeCluster)
	c.take(release.TypeEndpoint, "b")
	c.resume(release.TypeListener, map[string]string{"http": "old"})
	c.resume(release.TypeRoute, map[string]string{"http": "old"}, "http")
	c.take(release.TypeListener, "http")
	c.ack(cds)
	rds := c.next(release.TypeRoute)
	time.Sleep(150 * time.Millisecond)
	c.silence()
	c.ack(rds)
	c.gone(release.TypeCluster, "a")
	c.silence()
}

// TestNeighboursOfARefusedClusterAreInDoubt: Envoy runs the good part of a
// refused batch, and says on reconnect that it has what it had before.
func TestNeighboursOfARefusedClusterAreInDoubt(t *testing.T) {
	s := start(t, push.Config{Drain: 20 * time.Millisecond})
	c := settle(t, s, "one")
	before := made(t, cluster("a", 1), cluster("b", 1), of(listener("http"), routes("r", "a")))
	s.Publish(made(t, cluster("a", 2), cluster("b", 1), cluster("bad", 1), cluster("n", 1), of(listener("http"), routes("r", "a"))))
	c.nack(c.next(release.TypeCluster), "Error adding/updating cluster(s) bad: ring hash")
	within(t, time.Second, "refused", func() bool { return s.state("cluster") == ledger.Refused })
	c.leave()
	s.Publish(before)
	time.Sleep(100 * time.Millisecond)
	again := meet(t, s, "one")
	version := func(name string) string { return before.Get(release.Edge, release.TypeCluster, name).Version }
	again.resume(release.TypeCluster, map[string]string{"a": version("a"), "b": version("b")})
	again.take(release.TypeCluster, "a")
	again.take(release.TypeEndpoint, "a")
	again.gone(release.TypeCluster, "n")
	again.silence()
}

func TestClustersOfARemovedListenerGo(t *testing.T) {
	s := start(t, push.Config{Drain: 20 * time.Millisecond})
	c := settle(t, s, "one")
	s.Publish(made(t, cluster("b", 1)))
	c.gone(release.TypeListener, "http")
	unsubscribe(c, release.TypeRoute, "http")
	c.gone(release.TypeCluster, "a")
	c.silence()
}

func TestPoliciesRetire(t *testing.T) {
	s := start(t, push.Config{Drain: 20 * time.Millisecond, Retire: 400 * time.Millisecond})
	s.Publish(made(t, of(policy("p"), policy("q"))))
	c := meet(t, s, "extauthz")
	c.subscribe(release.TypePolicy)
	c.take(release.TypePolicy, "p", "q")
	began := time.Now()
	s.Publish(made(t, of(policy("q"))))
	c.gone(release.TypePolicy, "p")
	if took := time.Since(began); took < 400*time.Millisecond {
		t.Fatalf("gone after %s", took)
	}
	c.leave()
	again := meet(t, s, "extauthz")
	began = time.Now()
	again.resume(release.TypePolicy, map[string]string{"old": "1", "q": made(t, of(policy("q"))).Get(release.Edge, release.TypePolicy, "q").Version})
	again.gone(release.TypePolicy, "old") // proxies that come back later may still name it
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Fatalf("gone after %s", took)
	}
}

func TestRefusalEndsWhenItsCauseDoes(t *testing.T) {
	for name, cure := range map[string][]release.Object{
		"taken back": slices.Concat(cluster("a", 1), cluster("b", 1), of(listener("http"), routes("r", "a"))),
		"removed":    slices.Concat(cluster("a", 1), cluster("b", 1)),
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, push.Config{})
			c := settle(t, s, "one")
			s.Publish(made(t, cluster("a", 1), cluster("b", 1), of(listener("http"), routes("bad", "a"))))
			c.nack(c.next(release.TypeRoute), "no")
			within(t, time.Second, "refused", func() bool { return s.state("routeconfiguration") == ledger.Refused })
			s.Publish(made(t, cure))
			within(t, time.Second, "synced", func() bool { return s.state("routeconfiguration") == ledger.Synced })
		})
	}
}

// TestLateRefusal: an answer to what was overtaken takes nothing newer back.
func TestLateRefusal(t *testing.T) {
	s := start(t, push.Config{})
	c := settle(t, s, "one")
	base := slices.Concat(cluster("a", 1), cluster("b", 1), of(listener("http")))
	s.Publish(made(t, base, of(routes("bad", "a"))))
	first := c.next(release.TypeRoute)
	s.Publish(made(t, base, of(routes("good", "a"))))
	second := c.next(release.TypeRoute)
	c.nack(first, "no")
	c.ack(second)
	c.silence()
	s.Publish(made(t, base, of(routes("bad", "a"))))
	c.silence()
}

func TestABarrierDoesNotWaitForTheGone(t *testing.T) {
	s := start(t, push.Config{Barrier: 30 * time.Second})
	c := settle(t, s, "one")
	decider := meet(t, s, "extauthz")
	decider.subscribe(release.TypePolicy)
	decider.take(release.TypePolicy)
	s.Publish(made(t, cluster("a", 1), cluster("b", 1), of(listener("http"), routes("r", "b"), policy("p"))))
	decider.next(release.TypePolicy)
	decider.leave()
	c.take(release.TypeRoute, "http")
}

// TestSlowClient: one that reads nothing holds nobody up, and is sent the last
// state when it reads again.
func TestSlowClient(t *testing.T) {
	s := start(t, push.Config{})
	slow, err := discoveryv3.NewAggregatedDiscoveryServiceClient(s.conn).DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := settle(t, s, "one")
	for _, url := range []string{release.TypeRuntime, release.TypeCluster} {
		if err := slow.Send(&discoveryv3.DeltaDiscoveryRequest{Node: nodeOf("slow"), TypeUrl: url}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 50 {
		s.Publish(made(t, cluster("a", i+2), cluster("b", 1), of(listener("http"), routes("r", "a"))))
		c.take(release.TypeCluster, "a")
		c.take(release.TypeEndpoint, "a")
	}
}

func TestTooManyNames(t *testing.T) {
	s := start(t, push.Config{})
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(s.conn).DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, 100_001)
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: nodeOf("greedy"), TypeUrl: release.TypeEndpoint, ResourceNamesSubscribe: names}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Fatalf("got %v", err)
	}
}
