package push_test

import (
	"fmt"
	"testing"

	"tollgate/xds/push"
	"tollgate/xds/release"
)

// BenchmarkOneChange publishes one changed cluster of 10,000 until the last
// proxy was sent it and its endpoints.
func BenchmarkOneChange(b *testing.B) {
	for _, proxies := range []int{10, 100, 1_000} {
		b.Run(fmt.Sprintf("proxies=%d", proxies), func(b *testing.B) {
			var base []release.Object
			for i := range 10_000 {
				base = append(base, cluster(fmt.Sprintf("c%05d", i), 1)...)
			}
			first, second := made(b, base), made(b, base[2:], cluster("c00000", 2))
			s := start(b, push.Config{})
			s.Publish(first)
			var clients []*client
			held := map[string]string{}
			for _, name := range first.Names(release.Edge, release.TypeCluster) {
				held[name] = first.Get(release.Edge, release.TypeCluster, name).Version
			}
			for i := range proxies {
				c := s.connect(b, fmt.Sprintf("p%d", i))
				c.ack(c.next(release.TypeRuntime))
				c.resume(release.TypeCluster, held)
				clients = append(clients, c)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				s.Publish([]*release.Release{second, first}[i%2])
				for _, c := range clients {
					c.ack(c.next(release.TypeCluster))
					c.ack(c.next(release.TypeEndpoint))
				}
			}
		})
	}
}

// BenchmarkColdStart brings one new proxy to 10,000 clusters: each of them and
// its endpoints sent and answered, the clusters last, as Envoy does.
func BenchmarkColdStart(b *testing.B) {
	var base []release.Object
	for i := range 10_000 {
		base = append(base, cluster(fmt.Sprintf("c%05d", i), 1)...)
	}
	s := start(b, push.Config{})
	s.Publish(made(b, base))
	b.ReportAllocs()
	for b.Loop() {
		c := s.connect(b, "p")
		c.ack(c.next(release.TypeRuntime))
		c.subscribe(release.TypeCluster)
		cds := c.next(release.TypeCluster)
		for range 10_000 {
			c.ack(c.next(release.TypeEndpoint))
		}
		c.ack(cds)
		c.subscribe(release.TypeListener)
		c.next(release.TypeListener)
		c.leave()
	}
}
