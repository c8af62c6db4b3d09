package push_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/goleak"

	"tollgate/xds/ledger"
	"tollgate/xds/push"
	"tollgate/xds/release"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// settle brings a proxy to a release with clusters a and b and route r to a.
func settle(t *testing.T, s *server, id string) *client {
	t.Helper()
	s.Publish(made(t, cluster("a", 1), cluster("b", 1), of(listener("http"), routes("r", "a"))))
	c := s.connect(t, id)
	r := c.next(release.TypeRuntime)
	if len(r.GetRemovedResources()) != 1 {
		t.Fatal("a runtime layer that does not exist must be answered")
	}
	c.ack(r)
	c.subscribe(release.TypeCluster)
	c.take(release.TypeCluster, "a", "b")
	c.follow(release.TypeEndpoint, "a", "b")
	c.subscribe(release.TypeListener)
	c.take(release.TypeListener, "http")
	c.follow(release.TypeRoute, "http")
	c.silence()
	return c
}

// follow takes what comes unasked as Envoy does: it asks, then answers.
func (c *client) follow(url string, want ...string) {
	c.t.Helper()
	var unasked []*discoveryv3.DeltaDiscoveryResponse
	for _, name := range want {
		r := c.next(url)
		if got := names(r); !slices.Equal(got, []string{name}) {
			c.t.Fatalf("%s: got %v, want %s", url, got, name)
		}
		unasked = append(unasked, r)
	}
	c.subscribe(url, want...)
	probe := c.next(url)
	if got := names(probe); len(got) > 0 {
		c.t.Fatalf("%s: %v came twice", url, got)
	}
	for _, r := range append(unasked, probe) {
		c.ack(r)
	}
}

func TestFirstReleaseInOrder(t *testing.T) {
	settle(t, start(t, push.Config{}), "one")
}

func TestOneChangeSendsOneThingAndItsEndpoints(t *testing.T) {
	s := start(t, push.Config{})
	c := settle(t, s, "one")
	s.Publish(made(t, cluster("a", 2), cluster("b", 1), of(listener("http"), routes("r", "a"))))
	c.take(release.TypeCluster, "a")
	c.take(release.TypeEndpoint, "a")
	c.silence()
	s.Publish(made(t, cluster("a", 2), cluster("b", 1), of(listener("http"), routes("r", "a"))))
	c.silence()
}

func TestEndpointsDoNotWaitForTheClusterAnswer(t *testing.T) {
	s := start(t, push.Config{})
	c := settle(t, s, "one")
	s.Publish(made(t, cluster("a", 2), cluster("b", 1), of(listener("http"), routes("r", "a"))))
	c.next(release.TypeCluster) // never answered
	c.take(release.TypeEndpoint, "a")
	s.Publish(made(t, cluster("a", 2), cluster("b", 1), of(listener("http"), routes("r", "b"))))
	c.take(release.TypeRoute, "http") // a and b run already
}

func TestRouteToNewClusterWaitsOthersDoNot(t *testing.T) {
	s := start(t, push.Config{Hold: 5 * time.Second})
	c := settle(t, s, "one")
	s.Publish(made(t, cluster("a", 1), cluster("b", 1), cluster("n", 1), of(listener("http"), routes("r", "n", "fresh", "n", "s", "b"))))
	cds := c.next(release.TypeCluster)
	c.take(release.TypeEndpoint, "n")
	if got := targets(t, c.take(release.TypeRoute, "http")); !maps.Equal(got, map[string]string{"r": "a", "s": "b"}) {
		t.Fatalf("while n warms: %v", got)
	}
	c.silence()
	c.ack(cds)
	if got := targets(t, c.take(release.TypeRoute, "http")); !maps.Equal(got, map[string]string{"r": "n", "fresh": "n", "s": "b"}) {
		t.Fatalf("after n is warm: %v", got)
	}
}

// TestBackIsNew: a cluster that left before its addition was answered for is new
// when it comes back, whenever the answer comes.
func TestBackIsNew(t *testing.T) {
	base := slices.Concat(cluster("a", 1), cluster("b", 1), of(listener("http")))
	without, with := of(routes("r", "a")), slices.Concat(cluster("n", 2), of(routes("r", "a", "q", "n")))
	for name, back := range map[string]func(s *server, c *client, added, gone *discoveryv3.DeltaDiscoveryResponse) *discoveryv3.DeltaDiscoveryResponse{
		"answered before": func(s *server, c *client, added, gone *discoveryv3.DeltaDiscoveryResponse) *discoveryv3.DeltaDiscoveryResponse {
			c.ack(added)
			c.ack(gone)
			c.silence()
			s.Publish(made(c.t, base, with))
			return c.next(release.TypeCluster)
		},
		"answered after": func(s *server, c *client, added, gone *discoveryv3.DeltaDiscoveryResponse) *discoveryv3.DeltaDiscoveryResponse {
			s.Publish(made(c.t, base, with))
			again := c.next(release.TypeCluster)
			c.ack(added)
			c.ack(gone)
			return again
		},
		"answered in between": func(s *server, c *client, added, gone *discoveryv3.DeltaDiscoveryResponse) *discoveryv3.DeltaDiscoveryResponse {
			c.ack(gone)
			c.ack(added)
			c.silence()
			s.Publish(made(c.t, base, with))
			return c.next(release.TypeCluster)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, push.Config{Hold: 20 * time.Second, Drain: 50 * time.Millisecond})
			c := settle(t, s, "one")
			s.Publish(made(t, base, cluster("n", 1), without))
			added := c.next(release.TypeCluster)
			c.take(release.TypeEndpoint, "n")
			s.Publish(made(t, base, without))
			gone := c.next(release.TypeCluster)
			if !slices.Equal(gone.GetRemovedResources(), []string{"n"}) {
				t.Fatalf("%v, removed %v", names(gone), gone.GetRemovedResources())
			}
			again := back(s, c, added, gone)
			c.take(release.TypeEndpoint, "n")
			if got := targets(t, c.take(release.TypeRoute, "http")); got["q"] != "" {
				t.Fatalf("it did not wait: %v", got)
			}
			c.silence()
			c.ack(again)
			if got := targets(t, c.take(release.TypeRoute, "http")); got["q"] != "n" {
				t.Fatalf("%v", got)
			}
		})
	}
}

func TestHoldEnds(t *testing.T) {
	s := start(t, push.Config{Hold: 200 * time.Millisecond})
	c := settle(t, s, "one")
	s.Publish(made(t, cluster("a", 1), cluster("b", 1), cluster("n", 1), of(listener("http"), routes("r", "n"))))
	c.next(release.TypeCluster) // never answered
	c.take(release.TypeEndpoint, "n")
	c.take(release.TypeRoute, "http")
	if got := targets(t, c.take(release.TypeRoute, "http")); got["r"] != "n" {
		t.Fatalf("after the hold: %v", got)
	}
}

// A neighbour of a refused cluster runs already: its routes must not vanish
// while it is sent again by itself.
func TestRefusedBatchKeepsRunningRoutes(t *testing.T) {
	s := start(t, push.Config{Hold: 5 * time.Second})
	c := settle(t, s, "one")
	s.Publish(made(t, cluster("a", 2), cluster("b", 1), cluster("bad", 1), of(listener("http"), routes("r", "a", "x", "bad"))))
	cds := c.next(release.TypeCluster)
	c.take(release.TypeEndpoint, "a")
	c.take(release.TypeEndpoint, "bad")
	if got := targets(t, c.take(release.TypeRoute, "http")); got["r"] != "a" {
		t.Fatalf("while warming: %v", got)
	}
	c.nack(cds, "Error adding/updating cluster(s) bad: ring hash")
	removed, alone := false, false
	for !removed || !alone {
		r := c.next(release.TypeCluster)
		alone = alone || len(names(r)) == 1 && names(r)[0] == "a"
		removed = removed || len(r.GetRemovedResources()) == 1 && r.GetRemovedResources()[0] == "bad"
		c.ack(r)
	}
	c.take(release.TypeEndpoint, "a")
	if got := targets(t, c.take(release.TypeRoute, "http")); got["r"] != "a" {
		t.Fatalf("after the refusal: %v", got)
	}
	c.silence()
}

func TestRefusedRouteNeverComesAgain(t *testing.T) {
	s := start(t, push.Config{})
	c := settle(t, s, "one")
	bad := made(t, cluster("a", 1), cluster("b", 1), of(listener("http"), routes("bad", "a")))
	s.Publish(bad)
	c.nack(c.next(release.TypeRoute), "missing ]: [a")
	c.silence()
	line := s.book.Lines()
	found := false
	for _, l := range line {
		found = found || l.State == ledger.Refused && l.Type == "routeconfiguration"
	}
	if !found {
		t.Fatalf("the refusal does not show: %+v", line)
	}
	held := bad.Get(release.Edge, release.TypeListener, "http").Version
	c.leave()
	again := s.connect(t, "one")
	again.next(release.TypeRuntime)
	again.resume(release.TypeListener, map[string]string{"http": held})
	again.resume(release.TypeRoute, map[string]string{"http": "old"}, "http")
	again.silence()
	s.Publish(made(t, cluster("a", 1), cluster("b", 1), of(listener("http"), routes("good", "a"))))
	again.resume(release.TypeCluster, map[string]string{"a": "old"})
	again.silenceOf(t, release.TypeRoute)
}

// silenceOf takes responses until one of the type came.
func (c *client) silenceOf(t *testing.T, url string) {
	t.Helper()
	for {
		select {
		case r := <-c.in:
			c.ack(r)
			if r.GetTypeUrl() == url {
				return
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("no %s came", url)
		}
	}
}

// TestRefusesEverything: no content goes to one process more than twice, the
// second time alone; a fresh process, which brings no versions, starts anew.
func TestRefusesEverything(t *testing.T) {
	for name, held := range map[string]map[string]string{"fresh": nil, "carries on": {"a": "old"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, push.Config{Hold: 50 * time.Millisecond})
			s.Publish(made(t, cluster("a", 1), cluster("b", 1), of(listener("http"), listener("two"), routes("r", "a"))))
			seen := map[string]int{}
			for range 3 {
				before := len(seen)
				c := s.connect(t, "stubborn")
				c.resume(release.TypeCluster, held)
				c.subscribe(release.TypeListener)
				c.subscribe(release.TypeRoute, "http")
				c.subscribe(release.TypeEndpoint, "a", "b")
				c.refuseAll(300*time.Millisecond, seen)
				c.leave()
				within(t, 2*time.Second, "gone", func() bool { return s.state("cluster") == ledger.Gone })
				for what, n := range seen {
					if n > 2 {
						t.Errorf("%s was sent %d times", what, n)
					}
				}
				switch {
				case before > 0 && held != nil && len(seen) != before:
					t.Errorf("new to it on the same release: %v", seen)
				case held == nil && len(seen) == 0:
					t.Error("a fresh process was sent nothing")
				case held == nil:
					clear(seen)
				}
			}
		})
	}
}

// refuseAll refuses what comes until nothing does, and counts it.
func (c *client) refuseAll(idle time.Duration, seen map[string]int) {
	c.t.Helper()
	for {
		select {
		case r := <-c.in:
			for _, one := range r.GetResources() {
				seen[r.GetTypeUrl()+one.GetName()+one.GetVersion()]++
			}
			c.nack(r, "no")
		case <-time.After(idle):
			return
		}
	}
}

func TestReconnectSendsOnlyDifferences(t *testing.T) {
	s := start(t, push.Config{Drain: 200 * time.Millisecond})
	settle(t, s, "one").leave()
	r := made(t, cluster("a", 1), cluster("b", 2), of(listener("http"), routes("r", "a")))
	s.Publish(r)
	time.Sleep(quiet)
	c := s.connect(t, "one")
	c.next(release.TypeRuntime)
	version := func(url, name string) string { return r.Get(release.Edge, url, name).Version }
	c.resume(release.TypeListener, map[string]string{"http": version(release.TypeListener, "http")})
	c.resume(release.TypeRoute, map[string]string{"http": version(release.TypeRoute, "http")}, "http")
	c.resume(release.TypeEndpoint, map[string]string{"a": version(release.TypeEndpoint, "a")}, "a")
	c.silence()
	c.resume(release.TypeCluster, map[string]string{"a": version(release.TypeCluster, "a"), "b": "stale", "gone": "x"})
	got := c.next(release.TypeCluster)
	if fmt.Sprint(names(got), got.GetRemovedResources()) != "[b] []" {
		t.Fatalf("got %v, removed %v", names(got), got.GetRemovedResources())
	}
	c.ack(got)
	c.take(release.TypeEndpoint, "b")
	if r := c.next(release.TypeCluster); fmt.Sprint(r.GetRemovedResources()) != "[gone]" {
		t.Fatalf("removed %v", r.GetRemovedResources())
	}
}

// An Envoy that reconnects while a cluster warms asks for no clusters.
func TestClustersComeUnasked(t *testing.T) {
	s := start(t, push.Config{})
	s.Publish(made(t, cluster("a", 1), of(listener("http"), routes("r", "a"))))
	c := s.connect(t, "one")
	c.next(release.TypeRuntime)
	c.subscribe(release.TypeEndpoint, "a")
	c.take(release.TypeEndpoint, "a")
	c.subscribe(release.TypeListener)
	c.take(release.TypeListener, "http")
	c.take(release.TypeRoute, "http")
	c.take(release.TypeCluster, "a")
}

func TestClusterStaysUntilNoRouteNamesIt(t *testing.T) {
	s := start(t, push.Config{Drain: 100 * time.Millisecond})
	c := settle(t, s, "one")
	s.Publish(made(t, cluster("b", 1), of(listener("http"), routes("r", "b"))))
	rds := c.next(release.TypeRoute)
	select {
	case r := <-c.in:
		t.Fatalf("%s came before the routes were taken", r.GetTypeUrl())
	case <-time.After(400 * time.Millisecond):
	}
	c.ack(rds)
	if r := c.next(release.TypeCluster); len(r.GetRemovedResources()) != 1 || r.GetRemovedResources()[0] != "a" {
		t.Fatalf("removed %v", r.GetRemovedResources())
	}
}

func TestPoliciesBeforeRoutes(t *testing.T) {
	s := start(t, push.Config{Barrier: 300 * time.Millisecond})
	c := settle(t, s, "one")
	decider := s.connect(t, "extauthz")
	decider.next(release.TypeRuntime)
	decider.subscribe(release.TypePolicy)
	decider.ack(decider.next(release.TypePolicy)) // empty, but answered
	base := func(more ...release.Object) *release.Release {
		return made(t, cluster("a", 1), cluster("b", 1), of(listener("http")), more)
	}
	s.Publish(base(routes("r", "b"), policy("p")))
	answer := decider.next(release.TypePolicy)
	c.silence()
	decider.ack(answer)
	c.take(release.TypeRoute, "http")

	s.Publish(base(routes("r", "a"), policy("p"), policy("q")))
	decider.next(release.TypePolicy) // never answered
	c.take(release.TypeRoute, "http")
}
