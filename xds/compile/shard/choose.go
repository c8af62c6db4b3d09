package shard

import (
	"strings"

	"tollgate/xds/config"
)

// Enough is a number of routes that Envoy takes in at once without being felt:
// about 5 ms of its main thread.
const Enough = 128

// Host is what the routes of a host, or of a pattern of hosts, weigh in.
type Host struct {
	Name    string
	Pattern bool // it takes more hosts than one, so it is in every row
	Routes  []Path
}

// Path is which paths a route takes.
type Path struct {
	Text string // up to the first segment that is not fixed
	Open bool   // more segments may follow those of Text
}

// PathOf is all paths that a route can match, and perhaps more.
func PathOf(m *config.Match) Path {
	switch m.Kind {
	case config.PathExact:
		return Path{Text: m.Path}
	case config.PathPrefix:
		return Path{Text: m.Path, Open: true}
	case config.PathTemplate:
		fixed, _, open := strings.Cut(m.Path, "{")
		if !open {
			return Path{Text: m.Path}
		}
		return Path{Text: fixed[:max(strings.LastIndexByte(fixed, '/'), 0)], Open: true}
	case config.PathAny, config.PathRegex:
	}
	return Path{Open: true}
}

// Column is the one whose requests a route can match, unless it is every one.
func (p Path) Column(f Form) (column int, every bool) {
	if f.Path == 0 {
		return 0, false
	}
	if p.Open && strings.Count(strings.TrimSuffix(p.Text, "/"), "/") < f.Depth {
		return 0, true
	}
	return f.Column(p.Text), false
}

// Choose returns the form that makes an edit of one route cheapest on average,
// how many routes Envoy takes in for one then, and how many if all are one part.
// The form of hosts alone is preferred until another halves it: no route of a
// host has copies in it.
func Choose(hosts []Host) (best Form, cost, whole int) {
	for i := range hosts {
		whole += 1 + len(hosts[i].Routes)
	}
	forms := Forms()
	best, cost = forms[0], edit(hosts, forms[0])
	if cost <= Enough {
		return best, cost, whole
	}
	for _, f := range forms[1:] {
		if c := edit(hosts, f); 2*c < cost {
			best, cost = f, c
		}
	}
	return best, cost, whole
}

// edit is how many routes Envoy takes in on average when one is edited: those of
// every part that it is in. A host weighs as much as a route.
func edit(hosts []Host, f Form) int {
	w := weights{f: f, parts: make([]int, f.Parts()), rows: make([]int, f.Rows()), columns: make([]int, f.Columns())}
	for i := range hosts {
		w.put(&hosts[i], Path{Open: true})
		for _, p := range hosts[i].Routes {
			w.put(&hosts[i], p)
		}
	}
	for part, n := range w.parts {
		w.rows[part&(f.Rows()-1)] += n
		w.columns[part>>f.Host] += n
		w.total += n
	}
	routes, cost := 0, 0
	for i := range hosts {
		for _, p := range hosts[i].Routes {
			routes++
			cost += w.of(&hosts[i], p)
		}
	}
	return cost / max(routes, 1)
}

type weights struct {
	f                    Form
	parts, rows, columns []int
	total                int
}

// put adds a route to the parts that it is in.
func (w *weights) put(h *Host, p Path) {
	column, every := p.Column(w.f)
	first, last := column, column
	if every {
		first, last = 0, w.f.Columns()-1
	}
	for column = first; column <= last; column++ {
		if !h.Pattern {
			w.parts[w.f.Part(w.f.Row(h.Name), column)]++
			continue
		}
		for row := range w.f.Rows() {
			w.parts[w.f.Part(row, column)]++
		}
	}
}

// of is the weight of all parts that a route is in.
func (w *weights) of(h *Host, p Path) int {
	column, every := p.Column(w.f)
	switch {
	case every && h.Pattern:
		return w.total
	case h.Pattern:
		return w.columns[column]
	case every:
		return w.rows[w.f.Row(h.Name)]
	}
	return w.parts[w.f.Part(w.f.Row(h.Name), column)]
}
