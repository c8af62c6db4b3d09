// Package overlap finds routes that one request could match at equal rank, so
// that which of them answers would be chance. Invariant: its cost grows with
// the routes, not with their pairs.
package overlap

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// maxParted bounds how many routes of one path each other one is compared with.
const maxParted = 64

// Kind is how a path is matched, as far as rank goes.
type Kind int

// The kinds.
const (
	Literal Kind = iota // exact paths and prefixes, told apart by Path
	Template
	Regex
)

// Route is what decides the rank of a route and what it takes. Two routes tie
// only when everything but their methods is equal, and a regex's text.
type Route struct {
	Listeners  []string // never empty
	Hosts      []string // "" for every host; never empty
	Kind       Kind
	Path       string
	Priority   int
	Conditions string // equal for equal sets of conditions
	Methods    uint16 // one bit each
}

// Tie is a pair of routes by index, the earlier one first.
type Tie struct{ First, Second int }

type rank struct {
	listener, host string
	kind           Kind
	path           string
	priority       int
	conditions     string
}

type claimant struct {
	route   int
	methods uint16
	literal string // of a regex: what every match begins with
}

// Find returns at most one tie for each route.
func Find(routes []Route) []Tie {
	taken := map[rank][]claimant{}
	patterns := map[rank][]claimant{}
	var order []rank
	var ties []Tie
	for i, r := range routes {
		mine := claimant{route: i, methods: r.Methods}
		key := rank{kind: r.Kind, path: shape(r), priority: r.Priority, conditions: r.Conditions}
		if r.Kind == Regex {
			mine.literal = literal(r.Path)
		}
		tied := -1
		for _, key.listener = range r.Listeners {
			for _, key.host = range r.Hosts {
				if r.Kind == Regex {
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
			ties = append(ties, Tie{tied, i})
		}
	}
	return append(ties, among(order, patterns)...)
}

// Parted returns pairs of routes that only conditions on the request part, and
// whose policies, by index equal for equal ones, differ: whether a request is one
// or the other is then the client's choice. It returns at most one pair for each
// route.
func Parted(routes []Route, policies []string) []Tie {
	type place struct{ route, policy string }
	first := map[rank]map[place]int{}
	var out []Tie
	for i, r := range routes {
		key := rank{kind: r.Kind, path: r.Path, priority: 0}
		if r.Kind == Template {
			key.path = shape(r)
		}
		found := -1
		for _, key.listener = range r.Listeners {
			for _, key.host = range r.Hosts {
				if first[key] == nil {
					first[key] = map[place]int{}
				}
				for p, other := range first[key] {
					if p.policy != policies[i] && p.route != r.Conditions && routes[other].Methods&r.Methods != 0 && (found < 0 || other < found) {
						found = other
					}
				}
				if mine := (place{r.Conditions, policies[i]}); len(first[key]) < maxParted {
					if _, ok := first[key][mine]; !ok {
						first[key][mine] = i
					}
				}
			}
		}
		if found >= 0 {
			out = append(out, Tie{found, i})
		}
	}
	return out
}

// among compares regexes of one length: longer ones go first, so only these can
// tie. Sorted by what they begin with, only prefixes of each other can overlap.
func among(order []rank, patterns map[rank][]claimant) []Tie {
	var ties []Tie
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
				ties = append(ties, Tie{min(other, c.route), later})
			}
		}
	}
	return ties
}

func overlapping(list []claimant, c claimant) int {
	for _, other := range list {
		if other.methods&c.methods != 0 {
			return other.route
		}
	}
	return -1
}

// shape is the path as far as rank goes: templates without the names of their
// variables, regexes by their length.
func shape(r Route) string {
	switch r.Kind {
	case Template:
		segments := strings.Split(r.Path, "/")
		for i, s := range segments {
			if strings.HasPrefix(s, "{") {
				segments[i] = "{}"
			}
		}
		return strings.Join(segments, "/")
	case Regex:
		return strconv.Itoa(len(r.Path))
	default:
		return r.Path
	}
}

func literal(pattern string) string {
	re, err := regexp.Compile(strings.TrimPrefix(pattern, "^"))
	if err != nil {
		return ""
	}
	prefix, _ := re.LiteralPrefix()
	return prefix
}
