package compile_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"tollgate/internal/cost"
	"tollgate/xds/compile"
	"tollgate/xds/compile/shard"
	"tollgate/xds/config"
	"tollgate/xds/config/language"
	"tollgate/xds/release"
)

// same holds what a Compiler and Next make of a gateway against Compile and New,
// which know of no other: every version, reference and position of every
// resource.
func same(t *testing.T, gw *config.Gateway, scope compile.Scope, c *compile.Compiler, before *release.Release) *release.Release {
	t.Helper()
	wantObjects, wantWarnings := compile.Compile(gw, scope)
	want, err := release.New(wantObjects)
	if err != nil {
		t.Fatal(err)
	}
	objects, warnings := c.Compile(gw, scope)
	got, err := before.Next(objects)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(warnings, wantWarnings) {
		t.Errorf("warnings %q, want %q", warnings, wantWarnings)
	}
	for _, audience := range []release.Audience{release.Edge, release.GRPC} {
		for _, url := range []string{
			release.TypeListener, release.TypeScope, release.TypeRoute, release.TypeCluster, release.TypeSecret, release.TypeRuntime,
			release.TypePolicy, release.TypeIdentity, release.TypeRuleSet, release.TypeRateLimit,
		} {
			if a, b := want.Names(audience, url), got.Names(audience, url); !slices.Equal(a, b) {
				t.Errorf("%s %s: %v, want %v", audience, url, b, a)
				continue
			}
			for _, name := range want.Names(audience, url) {
				a, b := want.Get(audience, url, name), got.Get(audience, url, name)
				if !bytes.Equal(a.Body.GetValue(), b.Body.GetValue()) || a.Version != b.Version || a.Pos != b.Pos || !slices.Equal(a.Refs, b.Refs) {
					t.Errorf("%s %s %q differs: %v %v, want %v %v", audience, url, name, b.Pos, b.Refs, a.Pos, a.Refs)
				}
			}
		}
	}
	return got
}

// TestCompilerOverGoldens walks over every gateway of the goldens.
func TestCompilerOverGoldens(t *testing.T) {
	p := newPEMs(t)
	parser, err := language.NewParser()
	if err != nil {
		t.Fatal(err)
	}
	c, before := compile.NewCompiler(), &release.Release{}
	paths := cases(t)
	for _, path := range append(slices.Clone(paths), paths...) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{string(data), "# a line\n" + string(data)} {
			gw, _, err := parser.Parse([]config.Source{{Name: path, Data: []byte(text)}}, p.resolve)
			if err != nil {
				t.Fatal(err)
			}
			before = same(t, gw, scope(), c, before)
			if t.Failed() {
				t.Fatal(path)
			}
		}
	}
}

// choices picks one word of several, again and again the same ones until one of
// the picks is changed.
type choices struct {
	random *rand.Rand
	picks  []int
	next   int
}

func (c *choices) of(words ...string) string {
	if c.next == len(c.picks) {
		c.picks = append(c.picks, c.random.IntN(1000))
	}
	c.next++
	return words[c.picks[c.next-1]%len(words)]
}

func (c *choices) change() {
	c.picks[c.random.IntN(len(c.picks))] = c.random.IntN(1000)
	c.next = 0
}

// gateway is a file that the choices make: whatever a route is compiled from can
// be one or the other.
func (c *choices) gateway() string {
	var b strings.Builder
	b.WriteString(c.of("", "# a line\n"))
	b.WriteString("version: 1\nlisteners:\n  - {name: http, address: 127.0.0.1:8080}\n")
	b.WriteString(c.of("", "  - {name: two, address: 127.0.0.1:8081}\n"))
	fmt.Fprintf(&b, "identity: {api_keys: {header: %s, store: file:k.yaml}}\ntenants: [{name: \"*\", plan: p}]\n", c.of("x-key", "x-token"))
	fmt.Fprintf(&b, "plans: [{name: p, rate_limit: [{limit: %s, per: second, by: [%s]}]}]\n", c.of("1", "2"), c.of("tenant", "claim:x"))
	b.WriteString(c.of("", "", "rate_limit: [{limit: 9, per: second}]\n", "rate_limit: [{limit: 9, per: second, by: [route], on_error: closed}]\n"))
	b.WriteString(c.of("", "tracing: {otlp: 127.0.0.1:4317}\n"))
	fmt.Fprintf(&b, "defaults: {auth: api_key, timeout: %s}\nupstreams:\n", c.of("5s", "6s"))
	fmt.Fprintf(&b, "  - {name: a, endpoints: [127.0.0.1:9]%s}\n", c.of("", "", ", protocol: grpc", ", load_balancing: {policy: maglev, hash_on: ip}"))
	fmt.Fprintf(&b, "  - {name: b, endpoints: [127.0.0.1:8]%s}\n", c.of("", ", protocol: http2"))
	fmt.Fprintf(&b, "  - {name: s, split: [{upstream: a, weight: 1}, {upstream: b, weight: %s}]%s}\nroutes:\n", c.of("1", "2"), c.of("", "", ", sticky: {cookie: c}"))
	for i := range 8 {
		fmt.Fprintf(&b, "%s  - {name: r%d, match: {%spath: {prefix: /r%d}%s}, upstream: %s%s}\n", c.of("", "", "#"), i,
			c.of("", "", "hosts: [x.test], ", "hosts: [\"*.test\"], ", "hosts: [x.test, y.test, \"*.test\"], ", fmt.Sprintf("hosts: [h%d.test], ", i)), i/2,
			c.of(", methods: [GET]", ", methods: [POST]", fmt.Sprintf(", headers: {x: \"%d\"}", i)), c.of("a", "a", "b", "s"),
			c.of("", "", ", priority: 3", ", auth: public", ", mirror: {upstream: b}", ", mirror: {upstream: b}", ", mirror: {upstream: b}", ", rate_limit: [{limit: 2, per: second}]", ", max_body: 1KiB",
				", cors: {origins: [\"https://a.test\"]}", ", listeners: [http]", ", authorize: [{permission: a:b}]", ", retry: {attempts: 2}"))
	}
	b.WriteString("  - {name: last, auth: public, respond: {status: 404}}\n")
	return b.String()
}

// TestCompilerOverEdits walks at random among gateways, one change at a time.
func TestCompilerOverEdits(t *testing.T) {
	parser, err := language.NewParser()
	if err != nil {
		t.Fatal(err)
	}
	p, made := newPEMs(t), choices{random: rand.New(rand.NewPCG(3, 4))}
	c, before := compile.NewCompiler(), &release.Release{}
	valid := 0
	for valid < 300 {
		text := made.gateway()
		made.change()
		gw, _, err := parser.Parse([]config.Source{{Name: "g", Data: []byte(text)}}, p.resolve)
		if err != nil {
			continue // a tie
		}
		valid++
		before = same(t, gw, scope(), c, before)
		if t.Failed() {
			t.Fatal(text)
		}
	}
}

// TestCompilerSharesHosts: a host and the pattern over it share a virtual host if
// they reach the same, by one name or by both.
func TestCompilerSharesHosts(t *testing.T) {
	parser, err := language.NewParser()
	if err != nil {
		t.Fatal(err)
	}
	c, before := compile.NewCompiler(), &release.Release{}
	for _, hosts := range []string{`a.test, "*.test"`, `a.test`, `"*.test", b.test, a.b.test`, `a.test, "*.test"`} {
		text := "version: 1\nlisteners: [{name: http, address: 127.0.0.1:8080}]\nroutes:\n  - {name: r, match: {hosts: [" + hosts + "]}, auth: public, respond: {status: 404}}\n"
		gw, _, err := parser.Parse([]config.Source{{Name: "g", Data: []byte(text)}}, newPEMs(t).resolve)
		if err != nil {
			t.Fatal(err)
		}
		before = same(t, gw, scope(), c, before)
	}
}

// TestCompilerReuses: a route edited is compiled and encoded, and with it its
// policy; the rest is the very same, wherever it stands.
func TestCompilerReuses(t *testing.T) {
	const n = 1_000
	text := func(edited string, above string) []config.Source {
		var b strings.Builder
		b.WriteString(above + "version: 1\nlisteners: [{name: http, address: 127.0.0.1:8080}]\nidentity: {api_keys: {header: x-key, store: file:k.yaml}}\n")
		b.WriteString("rate_limit: [{limit: 9, per: second}]\nupstreams:\n  - {name: a, endpoints: [127.0.0.1:9]}\nroutes:\n")
		for i := range n {
			permission := "a:b"
			if i == n/2 {
				permission = edited
			}
			fmt.Fprintf(&b, "  - {name: r%d, match: {hosts: [h%d.test], path: {prefix: /r%d}}, auth: api_key, upstream: a, authorize: [{permission: %s}]}\n", i, i/10, i, permission)
		}
		return []config.Source{{Name: "g", Data: []byte(b.String())}}
	}
	parser, err := language.NewParser()
	if err != nil {
		t.Fatal(err)
	}
	c, last := compile.NewCompiler(), &release.Release{}
	made := func(sources []config.Source) *release.Release {
		gw, _, err := parser.Parse(sources, newPEMs(t).resolve)
		if err != nil {
			t.Fatal(err)
		}
		objects, _ := c.Compile(gw, compile.Scope{})
		if last, err = last.Next(objects); err != nil {
			t.Fatal(err)
		}
		return last
	}
	before := made(text("a:b", ""))
	now := made(text("a:c", ""))
	if same, policies := shared(before, now, release.TypePolicy); same != n-1 || policies != n {
		t.Errorf("%d of %d policies are the same", same, policies)
	}
	if !now.Shares(before, release.Edge, release.TypeCluster) || !now.Shares(before, release.Edge, release.TypeListener) || now.Shares(before, release.Edge, release.TypeRoute) {
		t.Error("the edit of a route is one of its policy and its route configuration")
	}
	moved := made(text("a:c", "# a line\n"))
	for _, name := range moved.Names(release.Edge, release.TypePolicy) {
		a, b := now.Get(release.Edge, release.TypePolicy, name), moved.Get(release.Edge, release.TypePolicy, name)
		if a.Body != b.Body || b.Pos.Line != a.Pos.Line+1 {
			t.Fatalf("%s: made again, or said to be at %v", name, b.Pos)
		}
	}
	gateways := make([]*config.Gateway, 2)
	for i, edited := range []string{"a:d", "a:e"} {
		if gateways[i], _, err = parser.Parse(text(edited, ""), newPEMs(t).resolve); err != nil {
			t.Fatal(err)
		}
	}
	turn := 0
	cost.AtMost(t, "release of one edit among 1,000 routes", cost.Of(10, func() {
		turn++
		objects, _ := c.Compile(gateways[turn%2], compile.Scope{})
		if last, err = last.Next(objects); err != nil {
			t.Fatal(err)
		}
	}), cost.Cost{Allocs: 10_500, Bytes: 2_600_000}) // half of them name 512 parts
}

func shared(a, b *release.Release, url string) (same, all int) {
	for one := range b.Resources(release.Edge, url) {
		all++
		if a.Get(release.Edge, url, one.Name) == one {
			same++
		}
	}
	return same, all
}

// TestCompilerWithoutEditions: a gateway of which nobody says what is the same is
// compiled as if there were no other.
func TestCompilerWithoutEditions(t *testing.T) {
	p := newPEMs(t)
	c := compile.NewCompiler()
	for _, path := range cases(t) {
		gw := parseFile(t, p, path)
		want, _ := compile.Compile(gw, scope())
		got, _ := c.Compile(gw, scope())
		if len(want) != len(got) {
			t.Fatalf("%s: %d objects, want %d", path, len(got), len(want))
		}
		for i := range want {
			if want[i].Name != got[i].Name || !proto.Equal(want[i].Message, got[i].Message) {
				t.Errorf("%s: %s differs", path, want[i].Name)
			}
		}
	}
}

// TestCompilerInParts: a Compiler is as good as Compile where routes are parted,
// from one form to the next and back.
func TestCompilerInParts(t *testing.T) {
	t.Parallel()
	parser, err := language.NewParser()
	if err != nil {
		t.Fatal(err)
	}
	c, before, r := compile.NewCompiler(), &release.Release{}, rand.New(rand.NewPCG(11, 12))
	paths := make([]string, 300)
	for i := range paths {
		paths[i] = words(r, 1+r.IntN(3))
	}
	forms := []*shard.Form{nil, {Host: 3}, {Host: 3}, {Host: 2, Path: 2, Depth: 2}, {Path: 3, Depth: 1}, nil}
	for step := range 3 * len(forms) {
		var text strings.Builder
		fmt.Fprintf(&text, "version: 1\nlisteners:\n  - {name: http, address: 127.0.0.1:8080}\nroutes:\n")
		paths[r.IntN(len(paths))] = words(r, 1+r.IntN(3))
		for i, path := range paths {
			fmt.Fprintf(&text, "  - {name: r%d, priority: %d, match: {hosts: [h%d.test, \"*.w%d.test\"], path: {prefix: \"%s\"}, methods: [GET]}, auth: public, respond: {body: ok}}\n", i, i, i%70, i%5, path)
		}
		gw, _, err := parser.Parse([]config.Source{{Name: "gateway.yaml", Data: []byte(text.String())}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		in := scope()
		in.Form = forms[step%len(forms)]
		before = same(t, gw, in, c, before)
		if t.Failed() {
			t.Fatalf("step %d", step)
		}
	}
}
