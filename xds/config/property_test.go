package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tollgate/xds/config"
	"tollgate/xds/config/language"
)

// FuzzParse: no input panics or hangs, a refusal says why, and the same bytes
// mean the same.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/*.good.yaml", "testdata/*.bad.yaml"} {
		for _, path := range files(f, pattern, 8) {
			f.Add(read(f, path).Data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		source := config.Source{Name: "fuzz.yaml", Data: data}
		one, warnings, err := language.Parse([]config.Source{source}, nil)
		two, _, again := language.Parse([]config.Source{source}, nil)
		if err == nil != (again == nil) || (err != nil && err.Error() != again.Error()) {
			t.Fatalf("parsed twice: %v, then %v", err, again)
		}
		if err == nil {
			if !reflect.DeepEqual(one, two) {
				t.Fatalf("parsed twice: %+v, then %+v", one, two)
			}
			return
		}
		var faults config.Faults
		if !errors.As(err, &faults) || len(faults) == 0 || len(faults)+len(warnings) > 202 || one != nil {
			t.Fatalf("a refusal without faults, or with a value: %v", err)
		}
	})
}

// TestBombs: what is written to hurt is refused fast.
func TestBombs(t *testing.T) {
	wide := "version: 1\ntenants: [" + strings.Repeat("a,", 4<<20) + "]\n"
	for name, data := range map[string]string{
		"too large":         strings.Repeat("#", config.MaxSource+1),
		"too many nodes":    wide,
		"deep flow":         strings.Repeat("[", 1<<20),
		"deep block":        strings.Repeat("- ", 1<<16),
		"deep mapping":      strings.Repeat("? ", 1<<16),
		"many faults":       "version: 1\n" + strings.Repeat("x: 1\n", 100_000),
		"alias bomb":        "version: 1\na: &a [x]\nb: &b [*a,*a,*a]\nc: [*b,*b,*b]\n",
		"long word":         "version: 1\n" + strings.Repeat("x", 1<<20) + ": 1\n",
		"unknown upstreams": many(5000, "nowhere%d"),
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, _, err := language.Parse([]config.Source{{Name: "bomb.yaml", Data: []byte(data)}}, nil)
			if err == nil {
				t.Fatal("accepted")
			}
			if len(err.Error()) > 2<<20 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

func many(n int, upstream string) string {
	var b strings.Builder
	b.WriteString("version: 1\nlisteners: [{name: http, address: 127.0.0.1:8080}]\n")
	b.WriteString("defaults: {auth: public, timeout: {default: 10s, get: 3s}, retry: {attempts: 3}}\nupstreams:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - {name: up%d, endpoints: [127.0.0.1:9001]}\n", i)
	}
	b.WriteString("routes:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - name: r%d\n    match: {hosts: [api.example.com], path: {prefix: /api/r%d}, methods: [GET, POST]}\n", i, i)
		fmt.Fprintf(&b, "    rate_limit: [{limit: 10, per: minute, by: [ip]}]\n    upstream: %s\n", strings.ReplaceAll(upstream, "%d", fmt.Sprint(i)))
	}
	return b.String()
}

// TestTies: among random routes, a tie is reported exactly when a naive
// comparison of all pairs finds one.
func TestTies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type route struct {
			host, path string
			methods    string
			priority   int
		}
		routes := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) route {
			return route{
				host:     rapid.SampledFrom([]string{"a", "b"}).Draw(t, "host"),
				path:     rapid.SampledFrom([]string{"exact: /x", "prefix: /x", "prefix: /x/", `template: "/x/{a}"`, `template: "/x/{b}"`}).Draw(t, "path"),
				methods:  rapid.SampledFrom([]string{"GET", "HEAD", "POST", "PUT"}).Draw(t, "method"),
				priority: rapid.IntRange(0, 1).Draw(t, "priority"),
			}
		}), 1, 6).Draw(t, "routes")
		var b strings.Builder
		b.WriteString("version: 1\nlisteners: [{name: l, address: 127.0.0.1:1}]\nroutes:\n")
		tied := false
		for i, r := range routes {
			fmt.Fprintf(&b, "  - {name: r%d, auth: public, priority: %d, match: {hosts: [%s], path: {%s}, methods: [%s]}, respond: {}}\n", i, r.priority, r.host, r.path, r.methods)
			for _, o := range routes[:i] {
				path := func(s string) string { return strings.NewReplacer("{b}", "{a}", "/x/\n", "/x\n").Replace(s + "\n") }
				methods := o.methods == r.methods || (o.methods+r.methods == "GETHEAD") || (o.methods+r.methods == "HEADGET")
				tied = tied || (o.host == r.host && path(o.path) == path(r.path) && methods && o.priority == r.priority)
			}
		}
		_, _, err := language.Parse([]config.Source{{Name: "g", Data: []byte(b.String())}}, nil)
		if (err != nil) != tied {
			t.Fatalf("tied %v, but %v:\n%s", tied, err, b.String())
		}
	})
}

// TestReference: the example of the language's own page.
func TestReference(t *testing.T) {
	gateway, warnings, err := parse(t, read(t, "testdata/reference.good.yaml"))
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%v %v", warnings, err)
	}
	if got := len(gateway.Routes); got != 3 {
		t.Errorf("%d routes, want 3", got)
	}
}

// TestSeveralFiles: what may be shared out among files, and what not.
func TestSeveralFiles(t *testing.T) {
	one := config.Source{Name: "a.yaml", Data: []byte("version: 1\nlisteners: [{name: http, address: 127.0.0.1:1}]\nupstreams: [{name: u, endpoints: [127.0.0.1:2]}]\ndefaults: {auth: public}\n")}
	two := config.Source{Name: "b.yaml", Data: []byte("version: 1\nroutes: [{name: r, upstream: u}]\n")}
	gateway, _, err := parse(t, one, two)
	if err != nil || len(gateway.Routes) != 1 || gateway.Routes[0].Pos.File != "b.yaml" {
		t.Fatalf("%+v %v", gateway, err)
	}
	two.Data = []byte("version: 1\nupstreams: [{name: u, endpoints: [127.0.0.1:3]}]\ndefaults: {}\n")
	_, _, err = parse(t, one, two)
	want := `b.yaml:2:20: upstreams[u]: the name "u" is taken: a.yaml:3:20 has it too
b.yaml:3:11: defaults: is written in two files: a.yaml:4:11 has it too`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// TestTenThousandRoutes holds the time; the benchmark measures it.
func TestTenThousandRoutes(t *testing.T) {
	source := config.Source{Name: "g", Data: []byte(many(10_000, "up%d"))}
	start := time.Now()
	gateway, _, err := language.Parse([]config.Source{source}, nil)
	if err != nil || len(gateway.Routes) != 10_000 {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("took %s", took)
	}
}

func BenchmarkParse(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		source := config.Source{Name: "g", Data: []byte(many(n, "up%d"))}
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := language.Parse([]config.Source{source}, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func ExampleParse() {
	source := config.Source{Name: "gateway.yaml", Data: []byte(`version: 1
listeners: [{name: http, address: 127.0.0.1:8080}]
upstreams: [{name: orders, endpoints: [127.0.0.1:9001]}]
routes: [{name: shop, auth: public, upstream: order}]
`)}
	_, _, err := language.Parse([]config.Source{source}, nil)
	fmt.Println(err)
	// Output: gateway.yaml:4:47: routes[shop].upstream: no upstream is named "order"; did you mean "orders"?
}

// TestShippedFiles: what lies under configs parses.
func TestShippedFiles(t *testing.T) {
	for _, path := range slices.Concat(files(t, "../../configs/*.yaml", 1), files(t, "../../configs/*/*.yaml", 0)) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(data), "\nversion: 1\n") {
			continue // keys, settings
		}
		source := config.Source{Name: filepath.Base(path), Data: data}
		resolve := func(ref config.Reference) config.Value {
			name := filepath.Join(filepath.Dir(path), strings.TrimPrefix(ref.Ref, "file:"))
			text, err := os.ReadFile(name)
			return config.Value{Text: string(text), Err: err}
		}
		if _, _, err := language.Parse([]config.Source{source}, resolve); err != nil {
			t.Errorf("%s:\n%v", path, err)
		}
	}
}
