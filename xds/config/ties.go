package config

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"tollgate/internal/strictyaml"
	"tollgate/xds/config/syntax"
)

// rank is everything that must be equal for two routes to tie. Only such
// routes are compared, which keeps ten thousand of them linear.
type rank struct {
	listener, host string
	kind           PathKind
	path           string
	priority       int
	conditions     string
}

// claimant is a route with the methods that it takes.
type claimant struct {
	route   int
	methods uint8
	literal string // of a regex: what every match begins with
}

// ties refuses two routes of equal rank that one request could match both.
func (b *builder) ties(g *Gateway) {
	every := b.names.listeners
	taken := map[rank][]claimant{}
	patterns := map[rank][]claimant{}
	var order []rank
	for i := range g.Routes {
		r := &g.Routes[i]
		mine := claimant{route: i, methods: mask(r.Match.Methods)}
		key := rank{kind: r.Match.Kind, path: shape(r.Match), priority: r.Priority, conditions: conditionKey(r.Match)}
		if key.kind == PathAny {
			key.kind, key.path = PathPrefix, "/"
		}
		if key.kind == PathRegex {
			mine.literal = literal(r.Match.Path)
		}
		tied := -1
		for _, key.listener = range listed(r.Listeners, every) {
			for _, key.host = range listed(r.Match.Hosts, []string{""}) {
				if key.kind == PathRegex {
					if patterns[key] == nil {
						order = append(order, key)
					}
					patterns[key] = append(patterns[key], mine)
					continue
				}
				if other := overlapping(taken[key], mine); other >= 0 {
					tied = other
					continue
				}
				taken[key] = append(taken[key], mine)
			}
		}
		if tied >= 0 {
			b.tie(g, tied, i)
		}
	}
	b.patternTies(g, order, patterns)
}

// patternTies compares regexes of one length: sorted by what they begin with,
// those that can overlap stand in each other's way.
func (b *builder) patternTies(g *Gateway, order []rank, patterns map[rank][]claimant) {
	reported := map[int]bool{}
	for _, key := range order {
		list := patterns[key]
		slices.SortStableFunc(list, func(x, y claimant) int { return cmp.Compare(x.literal, y.literal) })
		var around []claimant
		for _, c := range list {
			around = slices.DeleteFunc(around, func(a claimant) bool { return !strings.HasPrefix(c.literal, a.literal) })
			other := overlapping(around, c)
			if other < 0 {
				around = append(around, c)
				continue
			}
			if later := max(other, c.route); !reported[later] {
				reported[later] = true
				b.tie(g, min(other, c.route), later)
			}
		}
	}
}

func (b *builder) tie(g *Gateway, first, second int) {
	one, two := &g.Routes[first], &g.Routes[second]
	what := "the same hosts, path and methods"
	if two.Match.Kind == PathRegex || two.Match.Kind == PathTemplate {
		what = "hosts, methods and paths that overlap, at equal rank"
	}
	b.fault(strictyaml.Pos(two.Pos), "routes["+two.Name+"]", "ties with routes[%s] (%s:%d:%d): both have %s; give one a priority",
		one.Name, one.Pos.File, one.Pos.Line, one.Pos.Col, what)
}

func overlapping(list []claimant, c claimant) int {
	for _, other := range list {
		if other.methods&c.methods != 0 {
			return other.route
		}
	}
	return -1
}

// mask has a bit for every method; GET includes HEAD, none written is all.
func mask(methods []string) uint8 {
	var out uint8
	for i, m := range syntax.Methods() {
		if len(methods) == 0 || slices.Contains(methods, m) || (m == "HEAD" && slices.Contains(methods, "GET")) {
			out |= 1 << i
		}
	}
	return out
}

// shape is the path as far as rank goes: templates without the names of their
// variables, regexes by their length.
func shape(m Match) string {
	switch m.Kind {
	case PathTemplate:
		segments := strings.Split(m.Path, "/")
		for i, s := range segments {
			if strings.HasPrefix(s, "{") {
				segments[i] = "{}"
			}
		}
		return strings.Join(segments, "/")
	case PathRegex:
		return fmt.Sprint(len(m.Path))
	default:
		return m.Path
	}
}

func conditionKey(m Match) string {
	if len(m.Headers)+len(m.Query)+len(m.Cookies) == 0 {
		return ""
	}
	return fmt.Sprintf("%#v %#v %#v", m.Headers, m.Query, m.Cookies)
}

func literal(pattern string) string {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return ""
	}
	prefix, _ := re.LiteralPrefix()
	return prefix
}

func listed(written, unset []string) []string {
	if len(written) == 0 {
		return unset
	}
	return written
}
