package routing

import (
	"cmp"

	"tollgate/xds/compile/matching"
	"tollgate/xds/config"
)

// rank orders the Envoy routes of a virtual host as the language demands;
// Envoy takes the first that matches.
type rank struct {
	priority   int
	host       int    // 0 for the host itself, then "*.x" by length, then none
	kind       int    // exact, template, regex, prefix
	shape      string // of a template: literals before variables
	length     int    // of a regex or prefix: longer first
	path       string
	conditions int
	order      int // in the files, of those of one host
	seq        int // within a route of the file
}

func (a *rank) compare(b *rank) int {
	return cmp.Or(
		cmp.Compare(b.priority, a.priority), cmp.Compare(a.host, b.host), cmp.Compare(a.kind, b.kind), cmp.Compare(a.shape, b.shape),
		cmp.Compare(b.length, a.length), cmp.Compare(a.path, b.path), cmp.Compare(b.conditions, a.conditions),
		cmp.Compare(a.order, b.order), cmp.Compare(a.seq, b.seq),
	)
}

// rankOf places a route of the file, its host and its order apart.
func rankOf(r *config.Route) rank {
	out := rank{
		priority: r.Priority, path: r.Match.Path,
		conditions: len(r.Match.Headers) + len(r.Match.Query) + len(r.Match.Cookies),
	}
	switch r.Match.Kind {
	case config.PathExact:
		out.kind = 0
	case config.PathTemplate:
		out.kind, out.path, out.shape = 1, matching.TemplateRegex(r.Match.Path, false), matching.TemplateShape(r.Match.Path)
	case config.PathRegex:
		out.kind, out.length = 2, len(r.Match.Path)
	case config.PathAny:
		out.kind, out.path, out.length = 3, "/", 1
	case config.PathPrefix:
		out.kind, out.length = 3, len(r.Match.Path)
	}
	return out
}
