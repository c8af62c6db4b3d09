package compile_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	authzfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"tollgate/api/contract"
	"tollgate/xds/compile"
	"tollgate/xds/compile/field"
	"tollgate/xds/compile/shard"
	"tollgate/xds/config"
	"tollgate/xds/release"
)

// mixed is a gateway of n routes that overlap as much as they can: few hosts,
// patterns of hosts within each other, few words for paths, all kinds of paths,
// conditions and priorities. Each answers with its own name.
func mixed(r *rand.Rand, n int, address netip.AddrPort) *config.Gateway {
	gw := &config.Gateway{Listeners: []config.Listener{{Name: "http", Address: address}}, AccessLog: config.AccessLog{Off: true}}
	for i := range n {
		m := config.Match{Kind: config.PathKind(r.IntN(5))}
		few := 0
		if m.Kind == config.PathAny || m.Kind == config.PathRegex {
			few = 1 // else nothing is ever left to be not found
		}
		for range few + r.IntN(3) {
			m.Hosts = append(m.Hosts, pick(r, "a.test", "b.test", "in.x.test", "x.test", "d.in.x.test", "t1.example.com", "t2.example.com", "*.x.test", "*.in.x.test"))
		}
		m.Hosts = distinct(m.Hosts)
		switch m.Kind {
		case config.PathAny:
		case config.PathExact, config.PathPrefix:
			m.Path = words(r, 1+r.IntN(4))
		case config.PathTemplate:
			m.Path = words(r, r.IntN(3)) + pick(r, "/{v}", "/a{v}", "/{v}/b", "/b/{v}/{w}")
		case config.PathRegex:
			m.Path = pick(r, "/.*b", "/[ab]+/.*", "(/a)+/?", ".*/api/.*") + strings.Repeat("|x", i%3)
		}
		if r.IntN(3) == 0 {
			m.Methods = []string{pick(r, "GET", "POST", "DELETE")}
		}
		if r.IntN(4) == 0 {
			m.Headers = []config.Condition{{Name: "x-kind", Op: config.Equals, Value: pick(r, "one", "two")}}
		}
		if r.IntN(6) == 0 {
			m.Query = []config.Condition{{Name: "q", Op: config.Present}}
		}
		route := config.Route{Name: fmt.Sprint("r", i), Match: m, Auth: config.Auth{Mode: config.AuthPublic}, Respond: &config.Respond{Status: 200, Body: fmt.Sprint("r", i)}}
		if r.IntN(10) == 0 {
			route.Priority = r.IntN(5) - 2
		}
		gw.Routes = append(gw.Routes, &route)
	}
	return gw
}

func pick(r *rand.Rand, from ...string) string { return from[r.IntN(len(from))] }

func words(r *rand.Rand, n int) string {
	out := ""
	for range n {
		out += "/" + pick(r, "a", "b", "api", "v1", "r-17", "%C3%BC", "%c3%bc", "A")
	}
	return out
}

func distinct(words []string) []string {
	var out []string
	seen := map[string]bool{}
	for _, w := range words {
		if !seen[w] {
			seen[w], out = true, append(out, w)
		}
	}
	return out
}

// call is a request as a client writes it.
type call struct{ method, host, path, kind string }

func calls(r *rand.Rand, n int) []call {
	out := make([]call, n)
	for i := range out {
		host := pick(r, "a.test", "b.test", "in.x.test", "x.test", "d.in.x.test", "e.in.x.test", "t1.example.com", "t2.example.com", "t3.example.com", "c.test", "nowhere", "127.0.0.1")
		switch r.IntN(5) {
		case 0:
			host = strings.ToUpper(host)
		case 1:
			host = strings.ToUpper(host[:1]) + host[1:] + ":8443"
		case 2:
			host += pick(r, ".", ".:80", ":none", ":99999", ":", ":8:9")
		}
		path := words(r, r.IntN(5)) + pick(r, "", "", "/", "/zz", "/b", "//a", "/./a", "/../a", "/%61")
		if path == "" || strings.HasPrefix(path, "//") {
			path = "/" + strings.TrimLeft(path, "/") // Go's client takes it for a host
		}
		path += pick(r, "", "", "?q=1", "?x=/api/v1", "?q=1&q=2")
		out[i] = call{pick(r, "GET", "GET", "POST", "HEAD", "OPTIONS"), host, path, pick(r, "", "one", "two")}
	}
	return out
}

// client speaks one protocol to one address.
func client(address string, two bool) *http.Client {
	p := &http.Protocols{}
	p.SetHTTP1(!two)
	p.SetUnencryptedHTTP2(two)
	return &http.Client{
		Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{Protocols: p, MaxIdleConnsPerHost: 8, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		}},
	}
}

// answer is what is said to a call.
func (c call) answer(ctx context.Context, through *http.Client) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, c.method, "http://gateway/", nil)
	if err != nil {
		return nil, err
	}
	req.Host, req.URL.Opaque = c.host, c.path
	if c.kind != "" {
		req.Header.Set("x-kind", c.kind)
	}
	// A client's own word must not choose where its routes are looked for.
	req.Header.Set("x-envoy-tollgate-scope", "http/h9p0.0/0")
	return through.Do(req)
}

// shown is what a client sees of an answer, but for what is never twice the same.
func (c call) shown(ctx context.Context, through *http.Client) (string, error) {
	resp, err := c.answer(ctx, through)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	var refused struct{ Error struct{ Code, Reason string } }
	if json.Unmarshal(body, &refused) == nil {
		body = []byte(refused.Error.Code + " " + refused.Error.Reason)
	}
	return fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("allow"), " ", string(body)), nil
}

// TestPartsAreTheWhole: in whatever form the routes of a listener are parted,
// each request gets the answer that it gets from all of them in one. More than
// a moment's worth of requests: TOLLGATE_PARTS=20 (times as many).
func TestPartsAreTheWhole(t *testing.T) {
	t.Parallel()
	times := 1
	if text := os.Getenv("TOLLGATE_PARTS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		times = n
	}
	// Fewer bits than listeners have: every part holds the routes of all hosts.
	forms := []shard.Form{{Host: 4}}
	for depth := range 3 {
		forms = append(forms, shard.Form{Host: 2, Path: 2, Depth: depth + 1}, shard.Form{Path: 4, Depth: depth + 1})
	}
	routes, requests := rand.New(rand.NewPCG(5, 6)), rand.New(rand.NewPCG(7, 8))
	serve := func(gw *config.Gateway, form *shard.Form) *edge {
		gw.Listeners[0].Address = netip.MustParseAddrPort(freePort(t))
		in := scope()
		in.Form = form
		objects, _ := everything(gw, in, nil)
		return start(t, bootstrap(t, objects), gw.Listeners[0].Address.String())
	}
	gw := mixed(routes, 70, netip.AddrPort{})
	whole := serve(gw, nil)
	found := map[string]int{}
	for i := range forms {
		parts := serve(gw, &forms[i])
		for answer, n := range compare(t, forms[i].Name(), whole, parts, calls(requests, 760*times)) {
			found[answer] += n
		}
	}
	if len(found) < 40 || found["404"] == 0 || found["405"] == 0 || found["400"] == 0 {
		t.Errorf("the requests were no test: %v", found)
	}
}

// compare returns how often each answer was given.
func compare(t *testing.T, form string, whole, parts *edge, requests []call) map[string]int {
	t.Helper()
	found := map[string]int{}
	var mu sync.Mutex
	var running sync.WaitGroup
	work := make(chan call)
	for worker := range 4 {
		one, other := client(strings.TrimPrefix(whole.url, "http://"), worker%2 == 1), client(strings.TrimPrefix(parts.url, "http://"), worker%2 == 1)
		running.Go(func() {
			for c := range work {
				want, err := c.shown(t.Context(), one)
				if err != nil {
					t.Error(err)
					continue
				}
				got, err := c.shown(t.Context(), other)
				if err != nil || got != want {
					t.Errorf("%s: %+v: %q, %v; the whole says %q", form, c, got, err, want)
				}
				mu.Lock()
				found[strings.TrimPrefix(want[:3], "200")+strings.TrimPrefix(want[4:], " ")]++
				found[want[:3]]++
				mu.Unlock()
			}
		})
	}
	for _, c := range requests {
		work <- c
	}
	close(work)
	running.Wait()
	return found
}

// TestFewRoutesAreWhole: what is new with many routes is not there with few.
func TestFewRoutesAreWhole(t *testing.T) {
	t.Parallel()
	for n, parted := range map[int]bool{1: false, shard.Enough: false, shard.Enough + 1: true} {
		objects, _ := compile.Compile(large(n), scope())
		scopes, routes := 0, 0
		for _, o := range objects {
			if o.Type == release.TypeScope {
				scopes++
			}
			if o.Type == release.TypeRoute {
				routes++
			}
		}
		if parted != (scopes > 0) || routes != max(scopes, 1) {
			t.Errorf("%d routes: %d scopes, %d route configurations", n, scopes, routes)
		}
	}
}

// TestAnEditStaysInItsPart: one edited route among many changes the parts that
// it is in, and nothing else of what proxies are sent.
func TestAnEditStaysInItsPart(t *testing.T) {
	t.Parallel()
	make := func(edit func(*config.Gateway)) *release.Release {
		gw := &config.Gateway{Listeners: []config.Listener{{Name: "http", Address: netip.MustParseAddrPort("127.0.0.1:8080")}}}
		for i := range 2_000 {
			gw.Routes = append(gw.Routes, &config.Route{
				Name: fmt.Sprint("r", i), Match: config.Match{Hosts: []string{fmt.Sprintf("t%d.test", i)}}, Auth: config.Auth{Mode: config.AuthPublic},
				Respond: &config.Respond{Status: 200, Body: "old"},
			})
		}
		edit(gw)
		objects, _ := compile.Compile(gw, scope())
		out, err := release.New(objects)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	before := make(func(*config.Gateway) {})
	for name, edit := range map[string]func(*config.Gateway){
		"edited":  func(gw *config.Gateway) { gw.Routes[700].Respond.Body = "new" },
		"added":   func(gw *config.Gateway) { gw.Routes = append(gw.Routes, fresh()) },
		"removed": func(gw *config.Gateway) { gw.Routes = append(gw.Routes[:700:700], gw.Routes[701:]...) },
	} {
		changed := map[string]int{}
		after := make(edit)
		for _, url := range []string{release.TypeListener, release.TypeScope, release.TypeRoute} {
			for one := range after.Resources(release.Edge, url) {
				if old := before.Get(release.Edge, url, one.Name); old == nil || old.Version != one.Version {
					changed[url]++
					if hosts := len(one.Body.GetValue()); hosts > 8_000 {
						t.Errorf("%s: a part of %d bytes", name, hosts)
					}
				}
			}
		}
		if len(changed) != 1 || changed[release.TypeRoute] != 1 {
			t.Errorf("%s: changed %v", name, changed)
		}
	}
}

func fresh() *config.Route {
	return &config.Route{
		Name: "new", Match: config.Match{Hosts: []string{"new.test"}}, Auth: config.Auth{Mode: config.AuthPublic},
		Respond: &config.Respond{Status: 200, Body: "new"},
	}
}

// TestPartsWarn: who cannot be helped is told so.
func TestPartsWarn(t *testing.T) {
	t.Parallel()
	gw := &config.Gateway{Listeners: []config.Listener{{Name: "http"}}}
	for i := range 1_000 {
		gw.Routes = append(gw.Routes, &config.Route{
			Name: fmt.Sprint("r", i), Match: config.Match{Kind: config.PathRegex, Path: fmt.Sprintf("/.*/%04d", i)}, Auth: config.Auth{Mode: config.AuthPublic},
			Respond: &config.Respond{Status: 200},
		})
	}
	objects, warnings := compile.Compile(gw, scope())
	if len(warnings) != 1 || !strings.Contains(warnings[0], "listeners[http]") {
		t.Errorf("warnings %q", warnings)
	}
	for _, o := range objects {
		if c, ok := o.Message.(*routev3.RouteConfiguration); ok && o.Name != "http" {
			t.Fatalf("parted for nothing: %s of %d hosts", o.Name, len(c.GetVirtualHosts()))
		}
	}
}

// TestEnvoyComputesParts: Envoy takes the formula of every form and computes
// what we do, whatever case, port and dot a host is written with.
func TestEnvoyComputesParts(t *testing.T) {
	t.Parallel()
	for _, f := range shard.Forms() {
		gw := &config.Gateway{AccessLog: config.AccessLog{Off: true}, Listeners: []config.Listener{{Name: "http", Address: netip.MustParseAddrPort(freePort(t))}}}
		in := scope()
		in.Form = &f
		objects, _ := everything(gw, in, nil)
		b := bootstrap(t, objects)
		for _, l := range b.GetStaticResources().GetListeners() {
			tellParts(t, l)
		}
		e := start(t, b, gw.Listeners[0].Address.String())
		for _, c := range calls(rand.New(rand.NewPCG(9, 10)), 200) {
			for _, two := range []bool{false, true} {
				got := told(t, c, client(strings.TrimPrefix(e.url, "http://"), two))
				if got == "" {
					continue // refused before any route
				}
				host, _, _ := strings.Cut(c.host, ":")
				host = strings.TrimSuffix(host, ".")
				target, _, _ := strings.Cut(c.path, "?")
				want := fmt.Sprint("http/", f.Name(), "/", f.Part(f.Row(host), f.Column(normal(target))))
				if got != want {
					t.Fatalf("%+v: Envoy says %s, we %s", c, got, want)
				}
			}
		}
	}
}

// normal is the normal form of the paths that calls makes.
func normal(p string) string {
	out := path.Clean(strings.ReplaceAll(p, "%61", "a"))
	if out != "/" && (strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.") || strings.HasSuffix(p, "/..")) {
		out += "/"
	}
	return out
}

// tellParts makes a listener answer with the part that it looks into.
func tellParts(t *testing.T, l *listenerv3.Listener) {
	t.Helper()
	filter := l.GetFilterChains()[0].GetFilters()[0]
	hcm := &hcmv3.HttpConnectionManager{}
	if err := filter.GetTypedConfig().UnmarshalTo(hcm); err != nil {
		t.Fatal(err)
	}
	hcm.HttpFilters = hcm.GetHttpFilters()[len(hcm.GetHttpFilters())-1:]
	for _, scope := range hcm.GetScopedRoutes().GetScopedRouteConfigurationsList().GetScopedRouteConfigurations() {
		scope.GetRouteConfiguration().TypedPerFilterConfig = nil
		scope.GetRouteConfiguration().VirtualHosts = []*routev3.VirtualHost{{Name: "*", Domains: []string{"*"}, Routes: []*routev3.Route{{
			Match:                &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action:               &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 200}},
			ResponseHeadersToAdd: []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "x-part", Value: "%REQ(x-envoy-tollgate-scope)%"}}},
		}}}}
	}
	filter.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: field.Any(hcm)}
}

// told is the part that answers a call.
func told(t *testing.T, c call, through *http.Client) string {
	t.Helper()
	resp, err := c.answer(t.Context(), through)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.Header.Get("x-part")
}

// TestPartsAreNobodysBusiness: what Envoy notes for itself is shown neither to
// upstreams nor to the servers that decide, and is not a client's to say.
func TestPartsAreNobodysBusiness(t *testing.T) {
	t.Parallel()
	objects, _ := compile.Compile(large(shard.Enough+1), scope())
	hidden := 0
	for _, o := range objects {
		switch m := o.Message.(type) {
		case *routev3.RouteConfiguration:
			if !slices.Contains(m.GetRequestHeadersToRemove(), contract.HeaderScope) {
				t.Fatalf("%s sends it to upstreams", o.Name)
			}
		case *listenerv3.Listener:
			if o.Audience != release.Edge {
				continue
			}
			hcm, authz := &hcmv3.HttpConnectionManager{}, &authzfilterv3.ExtAuthz{}
			if err := m.GetFilterChains()[0].GetFilters()[0].GetTypedConfig().UnmarshalTo(hcm); err != nil {
				t.Fatal(err)
			}
			for _, f := range hcm.GetHttpFilters() {
				if f.GetName() == contract.AuthzFilter && f.GetTypedConfig().UnmarshalTo(authz) == nil && len(authz.GetDisallowedHeaders().GetPatterns()) == 1 {
					hidden++
				}
			}
			if n := len(hcm.GetEarlyHeaderMutationExtensions()); n != 2 {
				t.Errorf("%d early mutations: clients' own words go first", n)
			}
		}
	}
	if hidden != 1 {
		t.Error("the authorization servers see it")
	}
}
