package push_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"tollgate/xds/ledger"
	"tollgate/xds/push"
	"tollgate/xds/release"
)

// fleet is a gateway of many routes that answer with their name and edition.
type fleet struct {
	listener string
	names    []string
	edition  map[string]int
}

// hosts gives n hosts a route for everything each; the name of a route is its
// host. With paths, they are paths of one host.
func (f *fleet) grow(n int, paths bool) {
	f.names = f.names[:min(20, len(f.names))] // these stay whatever comes
	for i := len(f.names); i < n; i++ {
		name := fmt.Sprintf("t%d.test", i)
		if paths && i >= 20 {
			name = fmt.Sprintf("one.test/r%d", i)
		}
		f.names = append(f.names, name)
	}
}

func (f *fleet) text() string {
	var b strings.Builder
	b.WriteString("access_log: none\nroutes:\n")
	for i, name := range f.names {
		host, path, _ := strings.Cut(name, "/")
		fmt.Fprintf(&b, "  - {name: r%d-%d, match: {hosts: [%s], path: {prefix: /%s}}, auth: public, respond: {body: \"%s %d\"}}\n", i, len(path), host, path, name, f.edition[name])
	}
	b.WriteString("  - {name: wild, match: {hosts: [\"*.wild.test\"]}, auth: public, respond: {body: wild}}\n")
	b.WriteString("  - {name: any, match: {path: {prefix: /any}}, auth: public, respond: {body: any}}\n")
	return gateway(f.listener, b.String())
}

// ask returns what a route answers.
func (f *fleet) ask(ctx context.Context, c *http.Client, name string) (string, error) {
	host, path, _ := strings.Cut(name, "/")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+f.listener+"/"+path, nil)
	if err != nil {
		return "", err
	}
	req.Host = host
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return fmt.Sprint(resp.StatusCode, " ", string(body)), err
}

// load asks for what no edit touches, about 300 times a second, over both
// protocols and with hosts in both cases, until it is stopped.
func (f *fleet) load(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	wants := map[string]string{"a.wild.test": "200 wild", "nowhere.test/any/x": "200 any", "NOWHERE.test/any": "200 any", "In.Wild.TEST": "200 wild"}
	for i := range 20 {
		name := fmt.Sprintf("t%d.test", i)
		wants[name] = fmt.Sprintf("200 %s 0", name)
		wants[strings.ToUpper(name)] = wants[name]
	}
	var names []string
	for name := range wants {
		names = append(names, name)
	}
	var asked, wrong atomic.Int64
	var running sync.WaitGroup
	for worker := range 6 {
		c := protocol(worker%2 == 1)
		running.Go(func() {
			defer c.CloseIdleConnections()
			for i := worker; ctx.Err() == nil; i++ {
				name := names[i%len(names)]
				got, err := f.ask(ctx, c, name)
				if ctx.Err() == nil && (err != nil || got != wants[name]) && wrong.Add(1) < 10 {
					t.Errorf("%s answers %q, %v; want %q", name, got, err, wants[name])
				}
				asked.Add(1)
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	return func() {
		cancel()
		running.Wait()
		t.Logf("%d requests, %d wrong", asked.Load(), wrong.Load())
	}
}

func protocol(two bool) *http.Client {
	p := &http.Protocols{}
	p.SetHTTP1(!two)
	p.SetUnencryptedHTTP2(two)
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{Protocols: p, DialContext: (&net.Dialer{}).DialContext}}
}

// TestParts: routes go from one configuration into parts, from parts by host
// into parts by path, and back, and are edited meanwhile, while clients of two
// protocols ask for other routes: no request fails, and none gets another's
// answer. TOLLGATE_PARTS=20 edits 20 times as often.
func TestParts(t *testing.T) {
	t.Parallel()
	edits := 15
	if text := os.Getenv("TOLLGATE_PARTS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		edits *= n
	}
	f := &fleet{listener: freePort(t), edition: map[string]int{}}
	f.grow(100, false)
	p := newPlaneRetiring(t, "127.0.0.1:0", 4*time.Second)
	p.Publish(compiled(t, f.text()))
	startEnvoy(t, p.address)
	c := protocol(false)
	t.Cleanup(c.CloseIdleConnections)
	serves := func(name, want string) {
		t.Helper()
		within(t, 30*time.Second, name+" answers "+want, func() bool { got, err := f.ask(t.Context(), c, name); return err == nil && got == want })
	}
	serves("t99.test", "200 t99.test 0")
	stop := f.load(t)
	r := rand.New(rand.NewPCG(1, 2))
	for _, stage := range []struct {
		routes int
		paths  bool
	}{{300, false}, {400, true}, {300, false}, {100, false}, {200, true}} {
		f.grow(stage.routes, stage.paths)
		p.Publish(compiled(t, f.text()))
		last := f.names[len(f.names)-1]
		serves(last, fmt.Sprintf("200 %s %d", last, f.edition[last]))
		for range edits {
			i := 20 + r.IntN(len(f.names)-20)
			name := f.names[i]
			if r.IntN(4) == 0 {
				f.names = append(f.names[:i:i], f.names[i+1:]...)
				p.Publish(compiled(t, f.text()))
				within(t, 30*time.Second, name+" is gone", func() bool {
					got, err := f.ask(t.Context(), c, name)
					return err == nil && strings.HasPrefix(got, "404 ")
				})
				continue
			}
			f.edition[name]++
			p.Publish(compiled(t, f.text()))
			serves(name, fmt.Sprintf("200 %s %d", name, f.edition[name]))
		}
	}
	within(t, 30*time.Second, "all taken", func() bool { return p.states()["routeconfiguration"] == ledger.Synced })
	time.Sleep(5 * time.Second) // what retired is gone
	serves(f.names[30], fmt.Sprintf("200 %s %d", f.names[30], f.edition[f.names[30]]))
	stop()
}

// part is a route configuration and its scope.
func part(name string) []release.Object {
	scope := edge(release.TypeScope, name, &routev3.ScopedRouteConfiguration{
		Name: name, RouteConfigurationName: name, Key: &routev3.ScopedRouteConfiguration_Key{Fragments: []*routev3.ScopedRouteConfiguration_Key_Fragment{
			{Type: &routev3.ScopedRouteConfiguration_Key_Fragment_StringKey{StringKey: name}},
		}},
	})
	scope.Refs = []release.Ref{{Type: release.TypeRoute, Name: name}}
	return of(scope, edge(release.TypeRoute, name, &routev3.RouteConfiguration{Name: name}))
}

// TestScopesOutliveTheirListener: scopes that nobody needs by the files stay for
// a while with their routes, for who has them and for who comes only then, and
// go.
func TestScopesOutliveTheirListener(t *testing.T) {
	s := start(t, push.Config{Retire: 1500 * time.Millisecond})
	s.Publish(made(t, of(listener("http")), part("http/x/0")))
	one := s.connect(t, "one")
	one.ack(one.next(release.TypeRuntime))
	one.subscribe(release.TypeScope)
	one.take(release.TypeScope, "http/x/0")
	one.subscribe(release.TypeRoute, "http/x/0")
	one.take(release.TypeRoute, "http/x/0")
	s.Publish(made(t, of(listener("http")), part("http/y/0")))
	if r := one.take(release.TypeScope, "http/y/0"); len(r.GetRemovedResources()) > 0 {
		t.Fatalf("%v went at once", r.GetRemovedResources())
	}
	two := s.connect(t, "two")
	two.ack(two.next(release.TypeRuntime))
	two.subscribe(release.TypeScope)
	two.take(release.TypeScope, "http/x/0", "http/y/0")
	two.subscribe(release.TypeRoute, "http/x/0")
	two.take(release.TypeRoute, "http/x/0")
	for _, c := range []*client{one, two} {
		if r := c.next(release.TypeScope); len(r.GetResources()) > 0 || len(r.GetRemovedResources()) != 1 || r.GetRemovedResources()[0] != "http/x/0" {
			t.Errorf("in the end: %v", r)
		}
	}
}
