package xds_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/cost"
	"tollgate/xds"
	"tollgate/xds/discovery"
	"tollgate/xds/files"
	"tollgate/xds/release"
	"tollgate/xds/store"
)

// head is everything but the routes of a large gateway, u0 … u99 its upstreams.
func head() string {
	var b strings.Builder
	b.WriteString(`version: 1
listeners: [{name: http, address: "127.0.0.1:8080"}]
identity: {api_keys: {header: x-api-key, store: file:keys.yaml}}
defaults:
  auth: api_key
  timeout: {default: 10s, get: 3s}
  retry: {attempts: 3, retry_on: [connect-failure, refused-stream, "503"], backoff: {base: 25ms, max: 250ms}}
upstreams:
`)
	for i := range 100 {
		fmt.Fprintf(&b, "  - {name: u%d, endpoints: [\"127.0.0.1:%d\"]}\n", i, 9000+i)
	}
	b.WriteString("  - {name: registered, discovery: {registry: order}}\n  - {name: billed, discovery: {registry: billing}}\n")
	return b.String()
}

// routes are n of them from the first on, ten a host; edition is in the text of each.
func routes(first, n int, edition string) string {
	var b strings.Builder
	for i := first; i < first+n; i++ {
		fmt.Fprintf(&b, "  - name: r%d\n    match: {hosts: [h%d.example.com], path: {prefix: /api/r%d}, methods: [GET, POST]}\n    upstream: u%d\n    authorize:\n      - {permission: \"r%d:%s\"}\n", i, i/10, i, i%100, i, edition)
	}
	return b.String()
}

// told is a publisher that hands releases over one by one.
type told chan *release.Release

func (t told) Publish(r *release.Release) { t <- r }

// follow runs a pipeline over a file or folder until the test ends, and returns
// what it publishes; the first release is taken.
func follow(t testing.TB, path string, instances xds.Instances) told {
	t.Helper()
	set, err := files.New([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	out := make(told, 1)
	p, err := xds.NewPipeline(xds.PipelineConfig{
		Source: set, LastGood: store.NewLastGood(t.TempDir(), set.Dir(), set.Paths()), Publisher: out, Instances: instances,
		ExtAuthz: []string{"127.0.0.1:1"}, RateLimit: []string{"127.0.0.1:2"},
		Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	out.next(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return out
}

func (t told) next(tb testing.TB) *release.Release {
	tb.Helper()
	select {
	case r := <-t:
		return r
	case <-time.After(30 * time.Second):
		tb.Fatal("nothing was published")
	}
	return nil
}

func save(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// kinds are all types of resources.
func kinds() []string {
	return []string{
		release.TypeListener, release.TypeScope, release.TypeRoute, release.TypeCluster, release.TypeEndpoint, release.TypeSecret,
		release.TypeRuntime, release.TypePolicy, release.TypeIdentity, release.TypeRuleSet, release.TypeRateLimit,
	}
}

// made lists the resources of a release that are not the very same ones in
// another: what was encoded for it.
func made(now, before *release.Release) []string {
	var out []string
	for _, audience := range []release.Audience{release.Edge, release.GRPC} {
		for _, url := range kinds() {
			for _, name := range now.Names(audience, url) {
				if now.Get(audience, url, name) != before.Get(audience, url, name) {
					out = append(out, string(audience)+" "+url[strings.LastIndexByte(url, '.')+1:]+" "+name)
				}
			}
		}
	}
	return out
}

// TestInstanceCostsItsEndpoints: an instance that comes, changes or goes costs
// its upstream's endpoints and nothing else, whatever the number of routes. It
// once compiled and encoded all of them.
func TestInstanceCostsItsEndpoints(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.yaml")
	save(t, path, head()+"routes:\n"+routes(0, 10_000, "a"))
	registry := discovery.NewRegistry(time.Now)
	out := follow(t, path, registry)
	put := func(weight uint32) {
		if err := registry.Put("order", "one", discovery.Registration{Address: "127.0.0.1:7000", Weight: weight, TTL: 300}); err != nil {
			t.Fatal(err)
		}
	}
	put(1)
	before := out.next(t)
	put(2)
	now := out.next(t)
	want := "[edge ClusterLoadAssignment registered grpc ClusterLoadAssignment registered]"
	if got := fmt.Sprint(made(now, before)); got != want {
		t.Errorf("made %s, want %s", got, want)
	}
	for _, url := range kinds() {
		if shared := now.Shares(before, release.Edge, url); shared == (url == release.TypeEndpoint) {
			t.Errorf("%s: shared is %v", url, shared)
		}
	}
	weight := uint32(2)
	cost.AtMost(t, "an instance at 10,000 routes", cost.Of(200, func() { // so many that the watcher's first look at the file does not count
		weight = 3 - weight
		put(weight)
		out.next(t)
	}), cost.Cost{Allocs: 250, Bytes: 60_000})
	put(7)
	out.next(t)
	if err := registry.Put("billing", "one", discovery.Registration{Address: "127.0.0.1:7002", TTL: 300}); err != nil {
		t.Fatal(err)
	}
	billed := out.next(t)
	if billed.Get(release.Edge, release.TypeEndpoint, "registered").Version == before.Get(release.Edge, release.TypeEndpoint, "registered").Version {
		t.Error("the next change forgot the one before")
	}
	if err := registry.Put("unknown", "one", discovery.Registration{Address: "127.0.0.1:7001", TTL: 300}); err != nil {
		t.Fatal(err)
	}
	registry.Delete("order", "one")
	last := out.next(t) // an instance of nobody's published nothing
	if got := fmt.Sprint(made(last, billed)); got != want {
		t.Errorf("made %s, want %s", got, want)
	}
}

// TestEditCostsItsRoute: of a saved file, a route that was edited makes its policy
// and the part of the route table that holds it, whatever the number of routes
// and of files.
func TestEditCostsItsRoute(t *testing.T) {
	for _, folder := range []bool{false, true} {
		path, edit := large(t, 1_000, folder)
		out := follow(t, path, nobody{make(chan struct{})})
		edit()
		before := out.next(t)
		edit()
		now := out.next(t)
		var kinds []string
		for _, one := range made(now, before) {
			kinds = append(kinds, strings.Fields(one)[1])
		}
		if got := fmt.Sprint(kinds); got != "[RouteConfiguration Policy]" {
			t.Errorf("folder %v: made %s", folder, got)
		}
		cost.AtMost(t, "an edit among 1,000 routes", cost.Of(5, func() {
			edit()
			out.next(t)
		}), cost.Cost{Allocs: 26_000, Bytes: 6_500_000})
	}
}
