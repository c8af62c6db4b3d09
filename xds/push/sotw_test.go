package push_test

import (
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"google.golang.org/genproto/googleapis/rpc/status"

	"tollgate/xds/push"
	"tollgate/xds/release"
)

// wholeClient speaks state of the world.
type wholeClient struct {
	t      *testing.T
	stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	in     chan *discoveryv3.DiscoveryResponse
}

func (s *server) connectWhole(t *testing.T) *wholeClient {
	t.Helper()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(s.conn).StreamAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := &wholeClient{t: t, stream: stream, in: make(chan *discoveryv3.DiscoveryResponse, 100)}
	go func() {
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			c.in <- r
		}
	}()
	return c
}

func (c *wholeClient) send(r *discoveryv3.DiscoveryRequest) {
	c.t.Helper()
	r.Node = nodeOf("whole")
	if err := c.stream.Send(r); err != nil {
		c.t.Fatal(err)
	}
}

func (c *wholeClient) next(url string, resources int) *discoveryv3.DiscoveryResponse {
	c.t.Helper()
	select {
	case r := <-c.in:
		if r.GetTypeUrl() != url || len(r.GetResources()) != resources {
			c.t.Fatalf("got %s with %d", r.GetTypeUrl(), len(r.GetResources()))
		}
		return r
	case <-time.After(5 * time.Second):
		c.t.Fatalf("no %s came", url)
		return nil
	}
}

func (c *wholeClient) silence() {
	c.t.Helper()
	select {
	case r := <-c.in:
		c.t.Fatalf("unexpected %s", r.GetTypeUrl())
	case <-time.After(quiet):
	}
}

func limits(unit ratelimitv3.RateLimitUnit) release.Object {
	return edge(release.TypeRateLimit, "tollgate", &ratelimitv3.RateLimitConfig{Name: "tollgate", Domain: "tollgate", Descriptors: []*ratelimitv3.RateLimitDescriptor{
		{Key: "limit", RateLimit: &ratelimitv3.RateLimitPolicy{Unit: unit, RequestsPerUnit: 1}},
	}})
}

// TestReferenceLimiter: envoyproxy/ratelimit asks for all of its configs, acks
// and refuses them by nonce, and names a version when it comes back.
func TestReferenceLimiter(t *testing.T) {
	s := start(t, push.Config{})
	second, minute := made(t, of(limits(ratelimitv3.RateLimitUnit_SECOND))), made(t, of(limits(ratelimitv3.RateLimitUnit_MINUTE)))
	s.Publish(second)
	c := s.connectWhole(t)
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: release.TypeRateLimit})
	good := c.next(release.TypeRateLimit, 1)
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: release.TypeRateLimit, VersionInfo: good.GetVersionInfo(), ResponseNonce: good.GetNonce()})
	s.Publish(made(t, of(limits(ratelimitv3.RateLimitUnit_SECOND), policy("p"))))
	c.silence()

	s.Publish(minute)
	refused := c.next(release.TypeRateLimit, 1)
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: release.TypeRateLimit, VersionInfo: good.GetVersionInfo(), ResponseNonce: refused.GetNonce(), ErrorDetail: &status.Status{Code: 3, Message: "no"}})
	s.Publish(made(t, of(limits(ratelimitv3.RateLimitUnit_MINUTE), policy("q"))))
	c.silence()
	s.Publish(second)
	if r := c.next(release.TypeRateLimit, 1); r.GetVersionInfo() != good.GetVersionInfo() {
		t.Fatal("equal content, different versions")
	}

	again := s.connectWhole(t)
	again.send(&discoveryv3.DiscoveryRequest{TypeUrl: release.TypeRateLimit, VersionInfo: good.GetVersionInfo()})
	again.silence()
	s.Publish(minute)
	again.next(release.TypeRateLimit, 1)
}

func TestWholeByName(t *testing.T) {
	s := start(t, push.Config{Drain: 20 * time.Millisecond})
	s.Publish(made(t, cluster("a", 1), cluster("b", 1)))
	c := s.connectWhole(t)
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: release.TypeCluster, ResourceNames: []string{"a"}})
	first := c.next(release.TypeCluster, 1)
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: release.TypeCluster, VersionInfo: first.GetVersionInfo(), ResponseNonce: first.GetNonce(), ResourceNames: []string{"a", "b"}})
	both := c.next(release.TypeCluster, 2)
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: release.TypeCluster, VersionInfo: first.GetVersionInfo(), ResponseNonce: first.GetNonce(), ResourceNames: []string{"b"}})
	c.silence() // it speaks of an older response
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: release.TypeCluster, VersionInfo: both.GetVersionInfo(), ResponseNonce: both.GetNonce(), ResourceNames: []string{"a", "b"}})
	s.Publish(made(t, cluster("b", 1)))
	c.next(release.TypeCluster, 1) // what is not in it is removed
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: release.TypeEndpoint, ResourceNames: []string{"nobody"}})
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: release.TypeEndpoint + "x"})
	c.silence()
}
