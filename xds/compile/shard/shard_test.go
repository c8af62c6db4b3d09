package shard_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"tollgate/xds/compile/shard"
)

// formula is an expression as Envoy reads it, with a second implementation of
// its regular expressions.
type formula []struct {
	path    bool
	pattern *regexp.Regexp
	bit     int
}

func read(t *testing.T, expression string) formula {
	t.Helper()
	var out formula
	for _, text := range strings.SplitAfter(expression, ":0)") {
		m := regexp.MustCompile(`^\+?\(request\.(host|url_path)\.matches\('([^']*)'\)\?(\d+):0\)$`).FindStringSubmatch(text)
		if m == nil && text == "" {
			continue
		}
		if m == nil {
			t.Fatalf("%q is not a term", text)
		}
		bit, err := strconv.Atoi(m[3])
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, struct {
			path    bool
			pattern *regexp.Regexp
			bit     int
		}{m[1] == "url_path", regexp.MustCompile(strings.ReplaceAll(m[2], `\\`, `\`)), bit})
	}
	return out
}

func (f formula) of(host, path string) int {
	out := 0
	for _, term := range f {
		subject := host
		if term.path {
			subject = path
		}
		if term.pattern.MatchString(subject) {
			out += term.bit
		}
	}
	return out
}

// TestExpression: what Envoy computes is what we computed, for every form, in
// capitals or not.
func TestExpression(t *testing.T) {
	hosts := []string{"", "a", "a.test", "t17.example.com", "xn--bcher-kva.example", "127.0.0.1", "[::1]", "a.test:none", "[::1]:x:y", "*.x.test", strings.Repeat("a1-", 80)}
	paths := []string{
		"/", "", "/a", "/a/", "/a/b", "/a/b/c", "/a/b/c/d/e", "/api/v1/orders-17", "/%2f/x", "/a%2Fb/%c3%bc/z", "/~/_/-/.", "//", "/a//c",
		"/r0042/+/" + strings.Repeat("z9", 100),
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		hosts = append(hosts, text(r, "abcxyzABCXYZ0189-."))
		paths = append(paths, "/"+text(r, "abcxyzABCXYZ0189-./%_~"))
	}
	for _, f := range shard.Forms() {
		expression := f.Expression()
		if strings.ContainsAny(expression, "%\"\n") {
			t.Fatalf("%s: a formatter would read %s in another way", f.Name(), expression)
		}
		envoy := read(t, expression)
		for i := range max(len(hosts), len(paths)) {
			host, path := hosts[i%len(hosts)], paths[i%len(paths)]
			want := f.Part(f.Row(host), f.Column(path))
			if want < 0 || want >= f.Parts() {
				t.Fatalf("%s: part %d of %d", f.Name(), want, f.Parts())
			}
			for _, h := range []string{host, strings.ToUpper(host)} {
				if got := envoy.of(h, path); got != want {
					t.Fatalf("%s: host %q path %q: Envoy computes %d, we %d", f.Name(), h, path, got, want)
				}
			}
		}
	}
}

func text(r *rand.Rand, letters string) string {
	b := make([]byte, r.IntN(20))
	for i := range b {
		b[i] = letters[r.IntN(len(letters))]
	}
	return string(b)
}

// TestSpread: names that people give spread as random numbers would.
func TestSpread(t *testing.T) {
	f := shard.Forms()[0]
	for _, pattern := range []string{"t%d.example.com", "h%05d.test", "api-%d.svc.acme.io"} {
		sizes := make([]int, f.Parts())
		for i := range 10_000 {
			sizes[f.Row(fmt.Sprintf(pattern, i))]++
		}
		squares := 0
		for _, n := range sizes {
			squares += n * n
		}
		// Random numbers: 20.5 on average.
		if mean := float64(squares) / 10_000; mean > 40 {
			t.Errorf("%s: a host shares its row with %.1f others", pattern, mean)
		}
	}
}

// TestForms: parts are numbered without a gap, and names tell forms apart.
func TestForms(t *testing.T) {
	names := map[string]bool{}
	for _, f := range shard.Forms() {
		if names[f.Name()] {
			t.Errorf("%s twice", f.Name())
		}
		names[f.Name()] = true
		seen := map[int]bool{}
		for row := range f.Rows() {
			for column := range f.Columns() {
				seen[f.Part(row, column)] = true
			}
		}
		if len(seen) != f.Parts() || seen[f.Parts()] || !seen[0] || !seen[f.Parts()-1] {
			t.Errorf("%s: %d parts of %d", f.Name(), len(seen), f.Parts())
		}
	}
}

// TestPathIn: a route is in the column of every path that it takes.
func TestPathIn(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		p := shard.Path{Text: "/" + text(r, "ab/c"), Open: r.IntN(2) == 0}
		path := p.Text
		if p.Open && r.IntN(4) > 0 {
			path = strings.TrimSuffix(path, "/") + "/" + text(r, "ab/c")
		}
		for _, f := range shard.Forms() {
			if column, every := p.Column(f); !every && column != f.Column(path) {
				t.Fatalf("%s: %+v takes %q, whose column it is not in", f.Name(), p, path)
			}
		}
	}
}

// TestChoose: usual shapes get a form that makes edits cheap,
// and adding a route to one changes nothing.
func TestChoose(t *testing.T) {
	shapes := map[string]struct {
		hosts, routes int
		path          string
		host, limit   int
	}{
		"10,000 hosts":            {10_000, 1, "/", 9, 64},
		"100 hosts of 100 routes": {100, 100, "/r%d", 5, 64},
		"one host":                {1, 10_000, "/r%d", 0, 64},
		"one host, api":           {1, 10_000, "/api/v1/r%d", 0, 64},
	}
	for name, s := range shapes {
		t.Run(name, func(t *testing.T) {
			hosts := []shard.Host{{Name: "*", Pattern: true}}
			for i := range s.hosts {
				h := shard.Host{Name: fmt.Sprintf("t%d.example.com", i)}
				for j := range s.routes {
					h.Routes = append(h.Routes, shard.Path{Text: strings.ReplaceAll(s.path, "%d", strconv.Itoa(j)), Open: true})
				}
				hosts = append(hosts, h)
			}
			f, cost, _ := shard.Choose(hosts)
			if f.Host != s.host || cost > s.limit {
				t.Errorf("%s, %d routes for an edit", f.Name(), cost)
			}
			hosts[1].Routes = append(hosts[1].Routes, shard.Path{Text: "/new"})
			if g, _, _ := shard.Choose(hosts); g != f {
				t.Errorf("one more route, and it is %s", g.Name())
			}
		})
	}
}
