package compile_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"tollgate/xds/compile"
	"tollgate/xds/config"
	"tollgate/xds/release"
)

// large is a gateway of n routes over ten hosts, each with its upstream's
// timeouts, retries, policy and limits.
func large(n int) *config.Gateway {
	gw := &config.Gateway{
		Listeners: []config.Listener{{Name: "http", Address: netip.MustParseAddrPort("127.0.0.1:8080")}},
		Identity:  config.Identity{APIKeys: &config.APIKeys{Header: "x-api-key", Store: "keys.yaml"}},
		Tenants:   []config.Tenant{{Name: "*", Plan: "pro"}},
		Plans:     []config.Plan{{Name: "pro", RateLimit: []config.Limit{limit("plan/pro/0", "tenant")}}},
		RateLimit: []config.Limit{limit("gateway/gateway")},
	}
	for i := range max(n/100, 1) {
		gw.Upstreams = append(gw.Upstreams, config.Upstream{
			Name: fmt.Sprint("up-", i), Endpoints: []config.Endpoint{{Address: netip.MustParseAddrPort("127.0.0.1:9000"), Weight: 1}},
			ConnectTimeout: time.Second, Breaker: config.Breaker{MaxConnections: 1, MaxPending: 1, MaxRequests: 1},
		})
	}
	for i := range n {
		name := fmt.Sprint("route-", i)
		gw.Routes = append(gw.Routes, &config.Route{
			Name: name, Match: config.Match{Hosts: []string{fmt.Sprintf("h%d.test", i%10)}, Kind: config.PathPrefix, Path: fmt.Sprint("/api/", i), Methods: []string{"GET", "POST"}},
			Auth:      config.Auth{Mode: config.AuthAnyOf, Credentials: []config.Credential{{APIKey: true}}},
			Authorize: []config.Rule{{Permission: "orders:read"}},
			RateLimit: []config.Limit{limit("route/"+name+"/0", "tenant", "user")},
			Timeout:   config.Timeout{Default: 10 * time.Second, ByMethod: map[string]time.Duration{"GET": 3 * time.Second}},
			Retry:     &config.Retry{Attempts: 3, RetryOn: []string{"connect-failure", "503"}, BackoffBase: 25 * time.Millisecond, BackoffMax: 250 * time.Millisecond},
			MaxBody:   1 << 20, Upstream: gw.Upstreams[i%len(gw.Upstreams)].Name,
		})
	}
	return gw
}

func limit(id string, by ...string) config.Limit {
	return config.Limit{ID: id, Limit: 10, Window: time.Minute, Unit: "minute", By: by}
}

func BenchmarkCompile(b *testing.B) {
	for _, n := range []int{10, 1_000, 10_000} {
		gw := large(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				compile.Compile(gw, compile.Scope{})
			}
		})
		b.Run(fmt.Sprint(n, "-with-release"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				objects, _ := everything(gw, compile.Scope{}, nil)
				if _, err := release.New(objects); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// names lists the Envoy routes of a host in order.
func names(t testing.TB, gw *config.Gateway, host string) []string {
	t.Helper()
	objects, _ := everything(gw, compile.Scope{}, nil)
	for _, o := range objects {
		rc, ok := o.Message.(*routev3.RouteConfiguration)
		if !ok {
			continue
		}
		for _, vh := range rc.GetVirtualHosts() {
			for _, d := range vh.GetDomains() {
				if d != host {
					continue
				}
				var out []string
				for _, r := range vh.GetRoutes() {
					out = append(out, r.GetName())
				}
				return out
			}
		}
	}
	t.Fatalf("no virtual host takes %s", host)
	return nil
}

func TestOrder(t *testing.T) {
	route := func(name string, m config.Match) *config.Route {
		return &config.Route{Name: name, Match: m, Auth: config.Auth{Mode: config.AuthPublic}, Respond: &config.Respond{Status: 200}}
	}
	header := []config.Condition{{Name: "x-a", Op: config.Present}}
	gw := &config.Gateway{
		Listeners: []config.Listener{{Name: "http"}},
		Routes: []*config.Route{
			route("none", config.Match{Kind: config.PathExact, Path: "/a/b"}),
			route("wild", config.Match{Hosts: []string{"*.x.test"}, Kind: config.PathExact, Path: "/a/b"}),
			route("wider", config.Match{Hosts: []string{"*.test"}, Kind: config.PathExact, Path: "/a/b"}),
			route("any", config.Match{Hosts: []string{"h.x.test"}}),
			route("short", config.Match{Hosts: []string{"h.x.test"}, Kind: config.PathPrefix, Path: "/a"}),
			route("long", config.Match{Hosts: []string{"h.x.test"}, Kind: config.PathPrefix, Path: "/a/b", Methods: []string{"GET"}}),
			route("long-if", config.Match{Hosts: []string{"h.x.test"}, Kind: config.PathPrefix, Path: "/a/b", Headers: header, Methods: []string{"DELETE"}}),
			route("regex", config.Match{Hosts: []string{"h.x.test"}, Kind: config.PathRegex, Path: "/a/.*"}),
			route("var-first", config.Match{Hosts: []string{"h.x.test"}, Kind: config.PathTemplate, Path: "/{v}/b"}),
			route("var-last", config.Match{Hosts: []string{"h.x.test"}, Kind: config.PathTemplate, Path: "/a/{v}"}),
			route("exact", config.Match{Hosts: []string{"h.x.test"}, Kind: config.PathExact, Path: "/a/b"}),
			{Name: "raised", Priority: 1, Match: config.Match{Headers: header}, Auth: config.Auth{Mode: config.AuthPublic}, Respond: &config.Respond{Status: 200}},
		},
	}
	got := fmt.Sprint(names(t, gw, "h.x.test"))
	want := "[raised exact var-last var-first regex long-if long long#405 short any wild wider none]"
	if got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	if got := fmt.Sprint(names(t, gw, "*")); got != "[raised none]" {
		t.Errorf("*: %s", got)
	}
}

// FuzzCompile: any valid file compiles, twice to the same bytes, into messages
// that hold every constraint of their protos.
func FuzzCompile(f *testing.F) {
	for _, seed := range []struct {
		path, host, header string
		kind, methods      uint8
	}{
		{"/api", "a.test", "x-a", 2, 3},
		{"/v1/{id}/x", "*.test", "cookie", 3, 0},
		{"/a.*", "", "x-'\"", 4, 255},
		{"/%", "a%b", "x%", 1, 7},
	} {
		f.Add(seed.path, seed.host, seed.header, seed.kind, seed.methods)
	}
	f.Fuzz(func(t *testing.T, path, host, header string, kind, methods uint8) {
		gw := large(3)
		r := gw.Routes[1]
		r.Match.Kind, r.Match.Path, r.Match.Methods = config.PathKind(kind%5), path, nil
		for i, m := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"} {
			if methods&(1<<i) != 0 {
				r.Match.Methods = append(r.Match.Methods, m)
			}
		}
		r.Match.Hosts = nil
		if host != "" {
			r.Match.Hosts = []string{host}
		}
		r.Match.Headers = []config.Condition{{Name: header, Op: config.ConditionOp(kind % 5), Value: path}}
		r.CORS = &config.CORS{Origins: []string{"https://*." + host}}
		r.RateLimit = append(r.RateLimit, limit("route/route-1/1", "header:"+header, "query:"+path))
		first, _ := compile.Compile(gw, compile.Scope{})
		second, _ := compile.Compile(gw, compile.Scope{})
		for i := range first {
			options := proto.MarshalOptions{Deterministic: true}
			a, _ := options.Marshal(first[i].Message)
			b, _ := options.Marshal(second[i].Message)
			if !bytes.Equal(a, b) {
				t.Fatalf("%s %q differs between two compilations", first[i].Type, first[i].Name)
			}
		}
	})
}
