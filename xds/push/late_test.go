package push_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/bits"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"tollgate/xds/config"
	"tollgate/xds/ledger"
	"tollgate/xds/push"
	"tollgate/xds/release"
)

// unasked brings a proxy to the point at which the endpoints of a and b were
// sent behind their clusters, and nothing was said of them.
func unasked(t *testing.T, s *server) (c *client, behind []*discoveryv3.DeltaDiscoveryResponse) {
	t.Helper()
	s.Publish(made(t, cluster("a", 1), cluster("b", 1)))
	c = meet(t, s, "one")
	c.subscribe(release.TypeCluster)
	c.ack(c.next(release.TypeCluster))
	return c, []*discoveryv3.DeltaDiscoveryResponse{c.next(release.TypeEndpoint), c.next(release.TypeEndpoint)}
}

// TestDroppedEndpoints: an Envoy that resolves a name first wants no endpoints
// yet, drops those that come and never answers. When it asks, it gets them.
func TestDroppedEndpoints(t *testing.T) {
	c, _ := unasked(t, start(t, push.Config{}))
	c.silence() // before it asks, nobody knows
	c.subscribe(release.TypeEndpoint, "a", "b")
	c.take(release.TypeEndpoint) // empty: its answer shows what became of the others
	c.take(release.TypeEndpoint, "a")
	c.take(release.TypeEndpoint, "b")
	c.silence()
	c.subscribe(release.TypeCluster, "nothing")
	c.gone(release.TypeCluster, "nothing")
	c.silence()
}

// TestTakenEndpoints: one that asks, then answers, is sent nothing twice.
func TestTakenEndpoints(t *testing.T) {
	c, behind := unasked(t, start(t, push.Config{}))
	c.subscribe(release.TypeEndpoint, "a", "b")
	probe := c.next(release.TypeEndpoint)
	if len(probe.GetResources()) > 0 {
		t.Fatalf("sent %v twice", names(probe))
	}
	for _, r := range append(behind, probe) {
		c.ack(r)
	}
	c.silence()
}

// TestHalfDropped: what was passed over goes again, what was taken does not.
func TestHalfDropped(t *testing.T) {
	c, behind := unasked(t, start(t, push.Config{}))
	c.subscribe(release.TypeEndpoint, "a", "b")
	probe := c.next(release.TypeEndpoint)
	c.ack(behind[1])
	c.take(release.TypeEndpoint, "a")
	c.ack(probe)
	c.silence()
}

// TestKeptByNobody: what a proxy answered for before it asked for it has gone
// nowhere; it gets it when it asks for it for the first time, once.
func TestKeptByNobody(t *testing.T) {
	s := start(t, push.Config{})
	base := slices.Concat(cluster("a", 1), cluster("b", 1), of(listener("http"), routes("r", "a")))
	c := settle(t, s, "one")
	second := edge(release.TypeRoute, "second", &routev3.RouteConfiguration{Name: "second"})
	s.Publish(made(t, base, cluster("n", 1), of(listener("second"), second)))
	c.take(release.TypeCluster, "n")
	c.take(release.TypeEndpoint, "n")
	c.nack(c.next(release.TypeListener), "cannot bind")
	c.take(release.TypeRoute, "second")
	c.subscribe(release.TypeEndpoint, "n")
	c.take(release.TypeEndpoint, "n")
	c.silence()
	if n := s.Resend("one"); n != 1 {
		t.Fatalf("%d streams", n)
	}
	c.take(release.TypeListener, "second")
	c.subscribe(release.TypeRoute, "second")
	c.take(release.TypeRoute, "second")
	c.silence()
	unsubscribe(c, release.TypeRoute, "second")
	c.subscribe(release.TypeRoute, "second")
	c.take(release.TypeRoute, "second")
	c.silence()
}

// TestNoAnswer: what nothing is heard of for 2 s goes again, and what was
// dropped last is what goes: not an older form.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	s := start(t, push.Config{})
	c := settle(t, s, "one")
	base := slices.Concat(cluster("a", 1), cluster("b", 1), of(listener("http")))
	for _, to := range []string{"b", "a", "b"} {
		s.Publish(made(t, base, of(routes("r", to))))
		c.next(release.TypeRoute)
	}
	sent := time.Now()
	if got := targets(t, c.take(release.TypeRoute, "http")); got["r"] != "b" || time.Since(sent) < 1500*time.Millisecond {
		t.Fatalf("%v after %s", got, time.Since(sent))
	}
	c.silence()
	if s.state("routeconfiguration") != ledger.Synced {
		t.Fatalf("%+v", s.book.Lines())
	}
}

// TestRemovalWithoutAnswer: that something is gone is said again, too.
func TestRemovalWithoutAnswer(t *testing.T) {
	t.Parallel()
	s := start(t, push.Config{})
	c := settle(t, s, "one")
	s.Publish(made(t, cluster("a", 1), cluster("b", 1)))
	c.next(release.TypeListener)
	c.gone(release.TypeListener, "http")
	c.silence()
}

// TestMuteServerHoldsOnce: a server of policies that never answers holds one
// roll-out, not every one.
func TestMuteServerHoldsOnce(t *testing.T) {
	t.Parallel()
	s := start(t, push.Config{Barrier: time.Second})
	c := settle(t, s, "one")
	mute := meet(t, s, "extauthz")
	mute.subscribe(release.TypePolicy)
	mute.take(release.TypePolicy)
	base := slices.Concat(cluster("a", 1), cluster("b", 1), of(listener("http")))
	roll := func(to, p string) time.Duration {
		began := time.Now()
		s.Publish(made(t, base, of(routes("r", to), policy(p))))
		c.take(release.TypeRoute, "http")
		return time.Since(began)
	}
	if held := roll("b", "p"); held < 900*time.Millisecond {
		t.Fatalf("held %s only", held)
	}
	if held := roll("a", "q"); held > 800*time.Millisecond {
		t.Fatalf("held %s by who answers nobody", held)
	}
	// It comes back: to what was sent, and to what was sent again meanwhile.
	for done := false; !done; {
		select {
		case r := <-mute.in:
			mute.ack(r)
		case <-time.After(quiet):
			done = s.state("policy") == ledger.Synced
		}
	}
	if held := roll("b", "r"); held < 900*time.Millisecond {
		t.Fatalf("held %s only, by who answers again", held)
	}
}

// TestWholeOverdueShows: also of who speaks the state of the world.
func TestWholeOverdueShows(t *testing.T) {
	t.Parallel()
	p := newPlane(t, "127.0.0.1:0")
	p.Publish(made(t, cluster("a", 1)))
	conn, err := grpc.NewClient(p.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	c := (&server{Server: p.Server, book: p.book, conn: conn}).connectWhole(t)
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: release.TypeCluster})
	c.next(release.TypeCluster, 1)
	within(t, 15*time.Second, "overdue", func() bool { return p.sum(t, "tollgate_xds_overdue_answers") >= 1 })
}

// TestOverdueShows: an answer that never comes is in the account, the log and
// the metrics.
func TestOverdueShows(t *testing.T) {
	t.Parallel()
	p := newPlane(t, "127.0.0.1:0")
	p.Publish(made(t, cluster("a", 1)))
	conn, err := grpc.NewClient(p.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	s := &server{Server: p.Server, book: p.book, conn: conn}
	c := meet(t, s, "one")
	c.subscribe(release.TypeCluster)
	c.next(release.TypeCluster)
	overdue := func() float64 { return p.sum(t, "tollgate_xds_overdue_answers") }
	if overdue() != 0 {
		t.Fatal("at once")
	}
	within(t, 15*time.Second, "overdue", func() bool { return overdue() >= 1 })
	faults := s.book.Faults()
	if !slices.ContainsFunc(faults, func(f string) bool { return len(f) > 0 && f[:40] == "one has not answered for its cluster sin" }) {
		t.Fatalf("%q", faults)
	}
}

// TestBlindOverdueShows: also of who reads nothing, so that what it is sent does
// not even leave, when the server had nothing to look after before.
func TestBlindOverdueShows(t *testing.T) {
	t.Parallel()
	p := newPlane(t, "127.0.0.1:0")
	var objects []release.Object
	for i := range 3_000 {
		objects = append(objects, cluster(fmt.Sprintf("%05d-%s", i, strings.Repeat("x", 100)), 1)...)
	}
	p.Publish(made(t, objects))
	conn, err := grpc.NewClient(p.address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	time.Sleep(1500 * time.Millisecond) // it looks after nothing any more
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(t.Context())
	if err == nil {
		err = stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: nodeOf("blind"), TypeUrl: release.TypeCluster})
	}
	if err != nil {
		t.Fatal(err)
	}
	within(t, 20*time.Second, "overdue", func() bool { return p.sum(t, "tollgate_xds_overdue_answers") >= 1 })
	if events := p.book.Events("blind"); len(events) == 0 || len(events) > 10 { // of 65 responses, what a window and a buffer hold
		t.Errorf("%d events: %+v", len(events), events)
	}
}

// TestOneThread: a client that reads, then sends, in one thread, with windows as
// small as they get, takes 10,000 clusters and their endpoints.
func TestOneThread(t *testing.T) {
	var objects []release.Object
	for i := range 10_000 {
		objects = append(objects, cluster(fmt.Sprintf("c%05d", i), 1)...)
	}
	s, err := push.New(push.Config{Log: slog.New(slog.DiscardHandler), Ledger: ledger.New(time.Now)})
	if err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(append(push.ServerOptions(), grpc.InitialWindowSize(64<<10), grpc.InitialConnWindowSize(64<<10))...)
	s.Register(g)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{}, 2)
	go func() { _ = s.Run(ctx); ended <- struct{}{} }()
	go func() { _ = g.Serve(lis); ended <- struct{}{} }()
	t.Cleanup(func() { g.Stop(); cancel(); <-ended; <-ended })
	s.Publish(made(t, objects))
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	limit, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(limit)
	if err == nil {
		err = stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: nodeOf("one"), TypeUrl: release.TypeCluster})
	}
	taken := map[string]bool{}
	for err == nil && len(taken) < 20_000 {
		var r *discoveryv3.DeltaDiscoveryResponse
		if r, err = stream.Recv(); err != nil {
			break
		}
		for _, one := range r.GetResources() {
			taken[r.GetTypeUrl()+one.GetName()] = true
		}
		// Refused, so that the clusters come in ever more pieces, too.
		answer := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}
		if len(r.GetResources()) > 5_000 {
			answer.ErrorDetail = &status.Status{Code: 13, Message: "too many"}
		}
		err = stream.Send(answer)
	}
	if err != nil {
		t.Fatalf("after %d resources: %v", len(taken), err)
	}
}

// TestRefuseAllIsCheap: who refuses 1,000 clusters without saying why costs a
// few responses, and new content comes at once all the same.
func TestRefuseAllIsCheap(t *testing.T) {
	var objects []release.Object
	for i := range 1_000 {
		objects = append(objects, cluster(fmt.Sprintf("c%04d", i), 1)...)
	}
	t.Parallel()
	s := start(t, push.Config{Hold: 50 * time.Millisecond})
	s.Publish(made(t, objects))
	c := meet(t, s, "stubborn")
	c.subscribe(release.TypeCluster)
	clusters := 0
	for idle := false; !idle; {
		select {
		case r := <-c.in:
			if r.GetTypeUrl() == release.TypeCluster {
				clusters++
			}
			c.nack(r, "no")
		case <-time.After(3 * time.Second):
			idle = true
		}
	}
	if bound := 3 * bits.Len(1_000); clusters > bound {
		t.Fatalf("%d responses with clusters, at most %d", clusters, bound)
	}
	s.Publish(made(t, objects[2:], cluster("c0000", 2)))
	if r := c.next(release.TypeCluster); !slices.Equal(names(r), []string{"c0000"}) {
		t.Fatalf("%v", names(r))
	}
}

// TestRefusalNamesItsSource: where in the operator's file to look.
func TestRefusalNamesItsSource(t *testing.T) {
	s := start(t, push.Config{})
	bad := routes("r", "a")
	bad.Pos = config.Pos{File: "gateway.yaml", Line: 7, Col: 3}
	s.Publish(made(t, cluster("a", 1), of(listener("http"), bad)).Of("rev-1"))
	c := meet(t, s, "one")
	c.subscribe(release.TypeRoute, "http")
	c.nack(c.next(release.TypeRoute), "no\x1b[2J")
	want := []ledger.Refusal{{Resource: "http", Pos: "gateway.yaml:7:3", Why: `no\x1b[2J`}}
	within(t, 5*time.Second, "refused", func() bool { return s.state("routeconfiguration") == ledger.Refused })
	line := s.line("routeconfiguration")
	if !slices.Equal(line.Refusals, want) || line.Revision != "" {
		t.Fatalf("got %+v", line)
	}
	s.Publish(made(t, cluster("a", 1), of(listener("http"), routes("q", "a"))).Of("rev-2"))
	c.take(release.TypeRoute, "http")
	within(t, 5*time.Second, "rev-2", func() bool { return s.line("routeconfiguration").Revision == "rev-2" })
	s.Publish(made(t, cluster("a", 1), of(listener("http"), routes("q", "a"))).Of("rev-3")) // a comment
	within(t, 5*time.Second, "rev-3", func() bool { return s.line("routeconfiguration").Revision == "rev-3" })
}

// TestEventsTell: what was sent, taken and refused, and how long it took.
func TestEventsTell(t *testing.T) {
	s := start(t, push.Config{})
	c := settle(t, s, "one")
	s.Publish(made(t, cluster("a", 1), cluster("b", 1), of(listener("http"), routes("bad", "a"))))
	r := c.next(release.TypeRoute)
	time.Sleep(20 * time.Millisecond)
	c.nack(r, "no\x1b[2J")
	within(t, 5*time.Second, "refused", func() bool { return s.state("routeconfiguration") == ledger.Refused })
	events := s.book.Events("one")
	last := events[len(events)-2:]
	if last[0].What != ledger.Sent || last[0].Resource != "http" || last[1].What != ledger.Denied || last[1].Why != `no\x1b[2J` || last[1].Took < 20*time.Millisecond {
		t.Fatalf("%+v", last)
	}
	taken := 0
	for _, e := range events {
		if e.What == ledger.Taken && e.Type == "cluster" && e.Resources == 2 {
			taken++
		}
	}
	if taken != 1 {
		t.Fatalf("%+v", events)
	}
}

func (s *server) line(kind string) ledger.Line {
	for _, l := range s.book.Lines() {
		if l.Type == kind {
			return l
		}
	}
	return ledger.Line{}
}
