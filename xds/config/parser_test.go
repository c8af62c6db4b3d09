package config_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"tollgate/internal/cost"
	"tollgate/xds/config"
	"tollgate/xds/config/language"
)

// words are pieces of gateway files, which an edit puts somewhere.
var words = []string{
	"\n", "  ", "# x\n", "  - {name: zz, match: {path: {prefix: /zz}}, auth: public, respond: {status: 200}}\n", "\"", "{", "}", "&a ", "*a", "- ", ":",
	"defaults: {auth: public}\n", "routes:\n", "  - {name: up9, endpoints: [127.0.0.1:9]}\n", "none", "priority: 1\n", "env:SECRET", "|\n", "version: 1\n",
}

func edited(random *rand.Rand, data []byte) []byte {
	out := slices.Clone(data)
	for range 1 + random.IntN(2) {
		at := random.IntN(len(out) + 1)
		lines := bytes.SplitAfter(out, []byte("\n"))
		line := random.IntN(len(lines))
		switch random.IntN(6) {
		case 0: // a word anywhere
			out = slices.Concat(out[:at], []byte(words[random.IntN(len(words))]), out[at:])
		case 1: // a word where a line begins
			lines = slices.Insert(lines, line, []byte(words[random.IntN(len(words))]))
			out = bytes.Join(lines, nil)
		case 2: // a line less
			out = bytes.Join(slices.Delete(lines, line, line+1), nil)
		case 3: // a line twice
			out = bytes.Join(slices.Insert(lines, line, lines[line]), nil)
		case 4: // a digit or letter changed
			if at < len(out) && (out[at] >= '0' && out[at] < '9' || out[at] >= 'a' && out[at] < 'z') {
				out[at]++
			}
		case 5: // two lines swapped
			other := random.IntN(len(lines))
			lines[line], lines[other] = lines[other], lines[line]
			out = bytes.Join(lines, nil)
		}
	}
	return out
}

// corpus are the files that others of these tests read: good ones, and bad ones
// with their faults.
func corpus(t testing.TB) [][]byte {
	t.Helper()
	var out [][]byte
	for _, pattern := range []string{"testdata/*.good.yaml", "testdata/*.bad.yaml", "../../configs/*.yaml", "../../configs/examples/*.yaml"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, data)
		}
	}
	return out
}

// alike holds what a Parser says of a set against what Parse says that never
// saw another.
func alike(t testing.TB, p *language.Parser, sources []config.Source) (ok bool) {
	t.Helper()
	wantGateway, wantWarnings, wantErr := parse(t, sources...)
	gateway, warnings, err := p.Parse(sources, references)
	texts := ""
	for _, s := range sources {
		texts += "--- " + s.Name + "\n" + string(s.Data)
	}
	if fmt.Sprint(err) != fmt.Sprint(wantErr) {
		t.Fatalf("got\n%v\nwant\n%v\nof\n%s", err, wantErr, texts)
	}
	if diff := cmp.Diff(wantWarnings, warnings); diff != "" {
		t.Fatalf("warnings: -want +got\n%s\nof\n%s", diff, texts)
	}
	options := cmp.Options{
		cmpopts.IgnoreFields(config.Route{}, "Edition"), cmpopts.IgnoreFields(config.Upstream{}, "Edition"),
		cmpopts.EquateComparable(netip.AddrPort{}, netip.Prefix{}),
	}
	if diff := cmp.Diff(wantGateway, gateway, options); diff != "" {
		t.Fatalf("-want +got\n%s\nof\n%s", diff, texts)
	}
	return err == nil
}

// FuzzParser edits sets of files again and again, as operators do: whatever came
// before, a Parser says what Parse says.
func FuzzParser(f *testing.F) {
	all := corpus(f)
	for seed := range uint64(60) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 0))
		p, err := language.NewParser()
		if err != nil {
			t.Fatal(err)
		}
		var sources, good []config.Source
		for i := range 1 + random.IntN(3) {
			sources = append(sources, config.Source{Name: fmt.Sprintf("f%d.yaml", i), Data: all[random.IntN(len(all))]})
		}
		for range 12 {
			if alike(t, p, sources) {
				good = slices.Clone(sources)
			}
			i := random.IntN(len(sources))
			switch random.IntN(8) {
			case 0: // back to what was good
				if good != nil {
					sources = slices.Clone(good)
				}
			case 1: // a file more, or less
				if len(sources) > 1 && random.IntN(2) == 0 {
					sources = slices.Delete(slices.Clone(sources), i, i+1)
				} else {
					sources = append(slices.Clone(sources), config.Source{Name: fmt.Sprintf("g%d.yaml", random.IntN(9)), Data: all[random.IntN(len(all))]})
				}
			default:
				sources = slices.Clone(sources)
				sources[i].Data = edited(random, sources[i].Data)
			}
		}
	})
}

// TestParserOverEdits walks at random among texts of one gateway that differ in
// every way that matters to what may be used again, and holds each against Parse.
func TestParserOverEdits(t *testing.T) {
	const (
		head      = "version: 1\nlisteners: [{name: http, address: 127.0.0.1:8080}]\nidentity: {api_keys: {header: x-key, store: file:keys.yaml}}\n"
		defaults  = "defaults:\n  auth: api_key\n  authorize: [{permission: a:b}]\n  rate_limit: [{limit: 5, per: second, by: [user]}]\n"
		upstreams = "upstreams:\n  - {name: up0, endpoints: [127.0.0.1:9]}\n  - name: up1\n    endpoints: [127.0.0.1:8]\n  - {name: up2, endpoints: [127.0.0.1:7]}\n"
		group     = "  - name: g\n    rate_limit: [{limit: 3, per: minute}]\n    routes:\n      - {name: a, match: {path: {exact: /ga}}, upstream: up1}\n" +
			"      - name: b\n        match: {path: {exact: /gb}}\n        auth: public\n        authorize: none\n        upstream: up2\n"
		public = "  - {name: p, match: {path: {prefix: /p}}, auth: public, authorize: none, rate_limit: [{limit: 1, per: day, by: [user]}], upstream: up0}\n"
	)
	route := func(i int, more string) string {
		return fmt.Sprintf("  - name: r%d\n    match: {path: {prefix: /r%d}}\n    upstream: up%d\n%s", i, i, i%2, more)
	}
	rest := group + public
	for i := range 10 {
		rest += route(i, "")
	}
	without := func(text, part string) string { return strings.ReplaceAll(text, part, "") }
	texts := []struct{ name, text string }{
		{"as it is", head + defaults + upstreams + "routes:\n" + rest},
		{"a route edited", head + defaults + upstreams + "routes:\n" + rest + route(99, "    priority: 2\n")},
		{"a route on top", head + defaults + upstreams + "routes:\n" + route(98, "") + rest},
		{"a comment on top", "# hello\n" + head + defaults + upstreams + "routes:\n" + rest},
		{"defaults elsewhere", head + "# a line\n" + defaults + upstreams + "routes:\n" + rest},
		{"defaults below", head + upstreams + "routes:\n" + rest + defaults},
		{"defaults further below", head + upstreams + "routes:\n" + rest + "# a line\n" + defaults},
		{"defaults changed", head + strings.ReplaceAll(defaults, "limit: 5", "limit: 6") + upstreams + "routes:\n" + rest},
		{"no defaults", head + upstreams + "routes:\n  - {name: o, match: {path: {prefix: /o}}, auth: api_key, upstream: up1}\n"},
		{"in one line", head + defaults + upstreams + "routes: [{name: o, match: {path: {prefix: /o}}, upstream: up1}, {name: q, match: {path: {prefix: /q}}, upstream: up0}]\n"},
		{"in one line, defaults below", head + upstreams + "routes: [{name: o, match: {path: {prefix: /o}}, upstream: up1}]\n" + defaults},
		{"in one line, defaults further below", head + upstreams + "routes: [{name: o, match: {path: {prefix: /o}}, upstream: up1}]\n#\n" + defaults},
		{"a third upstream", head + defaults + without(upstreams, "  - {name: up2, endpoints: [127.0.0.1:7]}\n") + "  - {name: up2, split: [{upstream: up1, weight: 1}]}\nroutes:\n" + rest},
		{"a mirror", head + defaults + upstreams + "routes:\n" + route(97, "    mirror: {upstream: up2}\n")},
		{"bad: mirror to a split", head + defaults + without(upstreams, "  - {name: up2, endpoints: [127.0.0.1:7]}\n") +
			"  - {name: up2, split: [{upstream: up1, weight: 1}]}\nroutes:\n" + route(97, "    mirror: {upstream: up2}\n")},
		{"bad: an upstream less", head + defaults + without(upstreams, "  - {name: up2, endpoints: [127.0.0.1:7]}\n") + "routes:\n" + rest},
		{"bad: a name twice", head + defaults + upstreams + "routes:\n" + rest + route(3, "    priority: 4\n")},
		{"bad: a group's name twice", head + defaults + upstreams + "routes:\n" + rest + "  - {name: g, match: {path: {prefix: /gg}}, upstream: up0}\n"},
		{"bad: a tie", head + defaults + upstreams + "routes:\n" + rest + strings.ReplaceAll(route(3, ""), "name: r3", "name: again")},
		{"no tie any longer", head + defaults + upstreams + "routes:\n" + rest + strings.ReplaceAll(route(3, "    priority: 9\n"), "name: r3", "name: again")},
		{"parted by a header", head + defaults + upstreams + "routes:\n" + rest + "  - {name: h, match: {path: {prefix: /r3}, headers: {x: \"1\"}}, auth: public, authorize: none, upstream: up1}\n"},
		{"parted by a header, one policy", head + defaults + upstreams + "routes:\n" + rest + "  - {name: h, match: {path: {prefix: /r3}, headers: {x: \"1\"}}, upstream: up1}\n"},
		{"bad: no credentials any longer", "version: 1\nlisteners: [{name: http, address: 127.0.0.1:8080}]\n" + defaults + upstreams + "routes:\n" + rest},
		{"listeners more", strings.ReplaceAll(head, "[{name: http", "[{name: two, address: 127.0.0.1:8081}, {name: http") + defaults + upstreams + "routes:\n" + rest +
			strings.ReplaceAll(strings.ReplaceAll(route(3, "    listeners: [two]\n    priority: 1\n"), "name: r3", "name: again"), "/r3", "/again")},
		{"bad: one element twice", head + defaults + upstreams + "routes:\n" + rest + route(3, "")},
		{"bad: a word", head + defaults + upstreams + "routes:\n" + rest + route(96, "    nothing: x\n")},
	}
	p, err := language.NewParser()
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	before := ""
	for range 400 {
		step := texts[random.IntN(len(texts))]
		sources := []config.Source{{Name: "gateway.yaml", Data: []byte(step.text)}}
		if first, second, found := strings.Cut(step.text, "\nroutes:\n"); found && random.IntN(2) == 0 { // the same in two files
			sources = []config.Source{{Name: "a.yaml", Data: []byte(first + "\n")}, {Name: "b.yaml", Data: []byte("version: 1\nroutes:\n" + second)}}
		}
		ok := alike(t, p, sources)
		if ok == strings.HasPrefix(step.name, "bad: ") {
			_, _, err := parse(t, config.Source{Name: "gateway.yaml", Data: []byte(step.text)})
			t.Fatalf("%s after %s: %v", step.name, before, err)
		}
		before = step.name
	}
}

// TestParserAsksAgain: what a reference stands for may change while the files do
// not; whoever follows them learns of each reference that counts.
func TestParserAsksAgain(t *testing.T) {
	const lines = "version: 1\nlisteners:\n  - {name: http, address: env:ADDRESS}\nupstreams:\n  - {name: a, endpoints: [env:A]}\n  - {name: b, endpoints: [env:B]}\nroutes:\n  - {name: r, auth: public, upstream: a}\n"
	const flow = "{version: 1, listeners: [{name: http, address: env:ADDRESS}], upstreams: [{name: a, endpoints: [env:A]}, {name: b, endpoints: [env:B]}], routes: [{name: r, auth: public, upstream: a}]}\n"
	for name, text := range map[string]string{"lines": lines, "flow": flow} {
		p, err := language.NewParser()
		if err != nil {
			t.Fatal(err)
		}
		values := map[string]string{"env:ADDRESS": "127.0.0.1:80", "env:A": "127.0.0.1:1", "env:B": "127.0.0.1:2"}
		for step, change := range []string{"", "env:A", "env:ADDRESS", "", "env:B"} {
			if change != "" {
				values[change] = fmt.Sprintf("127.0.0.1:10%d", step)
			}
			asked := map[string]bool{}
			resolve := func(ref config.Reference) config.Value {
				asked[ref.Ref] = true
				return config.Value{Text: values[ref.Ref]}
			}
			g, _, err := p.Parse([]config.Source{{Name: "g.yaml", Data: []byte(text)}}, resolve)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{
				"env:ADDRESS": g.Listeners[0].Address.String(), "env:A": g.Upstreams[0].Endpoints[0].Address.String(), "env:B": g.Upstreams[1].Endpoints[0].Address.String(),
			}
			if diff := cmp.Diff(values, got); diff != "" || len(asked) != 3 {
				t.Errorf("%s, step %d: asked for %v, -want +got\n%s", name, step, asked, diff)
			}
		}
	}
}

// TestParserReuses: what did not change is the very same, wherever it stands; an
// edit costs no more than what it edits and a look at the rest.
func TestParserReuses(t *testing.T) {
	p, err := language.NewParser()
	if err != nil {
		t.Fatal(err)
	}
	const n = 2_000
	head := "version: 1\nlisteners: [{name: http, address: 127.0.0.1:8080}]\ndefaults: {auth: public}\nupstreams: [{name: a, endpoints: [127.0.0.1:9]}]\nroutes:\n"
	route := func(i int, more string) string {
		return fmt.Sprintf("  - name: r%d\n    match: {path: {prefix: /r%d}}\n    upstream: a\n%s", i, i, more)
	}
	file := func(edition int) []config.Source {
		var b strings.Builder
		b.WriteString(head)
		for i := range n {
			more := ""
			if i == 7 {
				more = fmt.Sprintf("    priority: %d\n", edition)
			}
			b.WriteString(route(i, more))
			if i == 7 && edition%2 == 1 { // all behind stand elsewhere
				b.WriteString("  # a line\n")
			}
		}
		return []config.Source{{Name: "gateway.yaml", Data: []byte(b.String())}}
	}
	made := func(edition int) *config.Gateway {
		g, _, err := p.Parse(file(edition), references)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	before := made(2)
	for edition, wantSame := range map[int]int{4: n - 1, 5: 7} { // the 8th moves the rest
		now, same, editions := made(edition), 0, 0
		for i := range now.Routes {
			if now.Routes[i] == before.Routes[i] {
				same++
			}
			if now.Routes[i].Edition == before.Routes[i].Edition {
				editions++
			}
		}
		if same != wantSame || editions != n-1 {
			t.Errorf("edition %d: %d are the same, want %d; %d say the same, want %d", edition, same, wantSame, editions, n-1)
		}
		before = made(2)
	}
	sources := [][]config.Source{file(2), file(4)}
	turn := 0
	cost.AtMost(t, "parse of one edit among 2,000 routes", cost.Of(10, func() {
		turn++
		if _, _, err := p.Parse(sources[turn%2], references); err != nil {
			t.Fatal(err)
		}
	}), cost.Cost{Allocs: 1_500, Bytes: 900_000})
}

func BenchmarkParserEdit(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p, err := language.NewParser()
			if err != nil {
				b.Fatal(err)
			}
			text := many(n, "up%d")
			var sources [2][]config.Source
			for i := range sources {
				sources[i] = []config.Source{{Name: "g", Data: []byte(strings.Replace(text, fmt.Sprintf("prefix: /api/r%d}", n/2), fmt.Sprintf("prefix: /edited%d}", i), 1))}}
				if _, _, err := p.Parse(sources[i], references); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, _, err := p.Parse(sources[i%2], references); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
