package push_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"pgregory.net/rapid"

	"tollgate/xds/push"
	"tollgate/xds/release"
)

// proxy behaves as Envoy does: it asks for the endpoints of its clusters and
// the routes of its listeners, applies the good part of a refused batch of
// clusters, ignores removals of endpoints and routes, and names on reconnect
// what it has taken.
type proxy struct {
	s  *server
	id string

	mu     sync.Mutex
	runs   map[string]map[string]string // type → name → version
	taken  map[string]map[string]string // the same, of accepted responses only
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	cancel context.CancelFunc
	wg     sync.WaitGroup
	faults []string
	asked  map[string]int // routes asked for: they may come behind their listener, and once more as the answer
	delay  time.Duration
}

var followed = map[string]string{release.TypeCluster: release.TypeEndpoint, release.TypeListener: release.TypeRoute}

func newProxy(s *server, id string) *proxy {
	p := &proxy{s: s, id: id, runs: map[string]map[string]string{}, taken: map[string]map[string]string{}, asked: map[string]int{}}
	for url, behind := range followed {
		for _, u := range []string{url, behind} {
			p.runs[u], p.taken[u] = map[string]string{}, map[string]string{}
		}
	}
	p.connect()
	return p
}

func (p *proxy) connect() {
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(p.s.conn).DeltaAggregatedResources(ctx)
	if err != nil {
		panic(err)
	}
	p.stream, p.cancel = stream, cancel
	p.request(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: p.id, Cluster: "edge"}, TypeUrl: release.TypeRuntime, ResourceNamesSubscribe: []string{"rt"}})
	for _, url := range []string{release.TypeCluster, release.TypeEndpoint, release.TypeListener, release.TypeRoute} {
		r := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: url, InitialResourceVersions: maps.Clone(p.taken[url])}
		for first, behind := range followed {
			if behind != url {
				continue
			}
			r.ResourceNamesSubscribe = slices.Sorted(maps.Keys(p.runs[first]))
			for name := range p.runs[first] {
				if !p.has(url, name) {
					p.runs[url][name] = "asked for"
				}
			}
		}
		p.request(r)
	}
	p.wg.Go(func() {
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			p.take(r)
		}
	})
}

func (p *proxy) leave() {
	p.cancel()
	p.wg.Wait()
}

func (p *proxy) request(r *discoveryv3.DeltaDiscoveryRequest) {
	_ = p.stream.Send(r) // an error is Recv's to see
}

// bad is what this proxy refuses: clusters of 7 s.
func bad(one *discoveryv3.Resource) bool {
	var c clusterv3.Cluster
	return one.GetResource().UnmarshalTo(&c) == nil && c.GetConnectTimeout().GetSeconds() == 7
}

func (p *proxy) take(r *discoveryv3.DeltaDiscoveryResponse) {
	p.mu.Lock()
	defer p.mu.Unlock()
	time.Sleep(p.delay)
	url := r.GetTypeUrl()
	answer := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: url, ResponseNonce: r.GetNonce()}
	refused := ""
	for _, one := range r.GetResources() {
		// Endpoints follow a changed cluster again, and what was in a batch whose
		// answer was lost is in doubt; nothing makes routes go twice.
		if url == release.TypeRoute && p.taken[url][one.GetName()] == one.GetVersion() {
			if p.asked[one.GetName()] == 0 {
				p.faults = append(p.faults, fmt.Sprint(url, one.GetName(), one.GetVersion(), " came though it runs"))
			}
			p.asked[one.GetName()]--
		}
		if bad(one) {
			refused += one.GetName() + ": ring hash, "
			continue
		}
		if p.runs[url] != nil {
			p.runs[url][one.GetName()] = one.GetVersion()
		}
	}
	if url == release.TypeCluster || url == release.TypeListener {
		for _, name := range r.GetRemovedResources() {
			delete(p.runs[url], name)
		}
	}
	if refused != "" {
		answer.ErrorDetail = &status.Status{Code: 13, Message: "Error adding/updating cluster(s) " + refused}
	} else if p.taken[url] != nil {
		for _, one := range r.GetResources() {
			p.taken[url][one.GetName()] = one.GetVersion()
		}
		for _, name := range r.GetRemovedResources() {
			delete(p.taken[url], name)
		}
	}
	p.request(answer)
	p.follow(url)
}

// follow asks for what the new clusters and listeners need, and forgets what
// the gone ones needed.
func (p *proxy) follow(url string) {
	behind, ok := followed[url]
	if !ok {
		return
	}
	r := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: behind}
	for name := range p.runs[url] {
		if !p.has(behind, name) {
			p.runs[behind][name] = "asked for"
			p.asked[name]++
			r.ResourceNamesSubscribe = append(r.ResourceNamesSubscribe, name)
		}
	}
	for name := range p.runs[behind] {
		if _, still := p.runs[url][name]; !still {
			delete(p.runs[behind], name)
			delete(p.taken[behind], name)
			r.ResourceNamesUnsubscribe = append(r.ResourceNamesUnsubscribe, name)
		}
	}
	if len(r.GetResourceNamesSubscribe())+len(r.GetResourceNamesUnsubscribe()) > 0 {
		p.request(r)
	}
}

func (p *proxy) has(url, name string) bool { _, ok := p.runs[url][name]; return ok }

// differs says where the proxy is not at a release yet.
func (p *proxy) differs(r *release.Release) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.faults) > 0 {
		return fmt.Sprint(p.faults)
	}
	for url, have := range p.runs {
		want := map[string]string{}
		for _, name := range r.Names(release.Edge, url) {
			want[name] = r.Get(release.Edge, url, name).Version
		}
		if !maps.Equal(have, want) {
			return fmt.Sprintf("%s: has %v, want %v", url, have, want)
		}
	}
	return ""
}

// edit draws a release: some clusters, perhaps bad ones, listeners with a route
// to each of some of them.
func edit(t *rapid.T, mayBeBad bool) []release.Object {
	var objects []release.Object
	var there []string
	for _, name := range []string{"a", "b", "c", "d"} {
		n := rapid.SampledFrom([]int{0, 1, 2, 3, 7}).Draw(t, "cluster "+name)
		if n == 7 && !mayBeBad {
			n = 4
		}
		if n == 0 {
			continue
		}
		objects, there = append(objects, cluster(name, n)...), append(there, name)
	}
	for _, name := range []string{"http", "https"} {
		if !rapid.Bool().Draw(t, "listener "+name) {
			continue
		}
		var pairs []string
		for _, to := range there {
			if rapid.Bool().Draw(t, "route to "+to) {
				pairs = append(pairs, "r-"+to, to)
			}
		}
		rc := routes(pairs...)
		rc.Name = name
		objects = append(objects, listener(name), rc)
	}
	return objects
}

// TestEndsAtTheRelease: whatever was edited, refused or cut off on the way,
// every proxy runs in the end what the last good release says, nothing more.
func TestEndsAtTheRelease(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := start(t, push.Config{Hold: 20 * time.Millisecond, Drain: 10 * time.Millisecond, Barrier: 10 * time.Millisecond, Retire: 20 * time.Millisecond})
		proxies := []*proxy{newProxy(s, "one"), newProxy(s, "two")}
		defer func() {
			for _, p := range proxies {
				p.leave()
			}
		}()
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			p := proxies[rapid.IntRange(0, 1).Draw(rt, "proxy")]
			switch rapid.SampledFrom([]string{"edit", "edit", "reconnect", "slow", "wait"}).Draw(rt, "step") {
			case "edit":
				s.Publish(made(t, edit(rt, true)))
			case "reconnect":
				p.leave()
				p.connect()
			case "slow":
				p.mu.Lock()
				p.delay = time.Duration(rapid.IntRange(0, 5).Draw(rt, "ms")) * time.Millisecond
				p.mu.Unlock()
			case "wait":
				time.Sleep(15 * time.Millisecond)
			}
		}
		last := made(t, edit(rt, false))
		s.Publish(last)
		for _, p := range proxies {
			deadline := time.Now().Add(20 * time.Second) // seconds on a loaded machine
			for p.differs(last) != "" {
				if time.Now().After(deadline) {
					rt.Fatalf("%s never got there: %s", p.id, p.differs(last))
				}
				time.Sleep(2 * time.Millisecond)
			}
		}
	})
}
