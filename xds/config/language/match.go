package language

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"tollgate/api/contract"
	"tollgate/internal/strictyaml"
	"tollgate/xds/config"
	"tollgate/xds/config/overlap"
	"tollgate/xds/config/syntax"
)

func match(s *syntax.Match) config.Match {
	if s == nil {
		return config.Match{}
	}
	m := config.Match{
		Hosts: strs(s.Hosts.Items), Methods: strs(s.Methods.Items),
		Headers: conditions(s.Headers), Query: conditions(s.Query), Cookies: conditions(s.Cookies),
	}
	for i := range m.Headers {
		m.Headers[i].Name = strings.ToLower(m.Headers[i].Name)
	}
	m.Hosts, m.Methods = distinct(m.Hosts), distinct(m.Methods)
	if p := s.Path; p != nil {
		switch {
		case p.Exact.IsSet():
			m.Kind, m.Path = config.PathExact, string(p.Exact.V)
		case p.Template.IsSet():
			m.Kind, m.Path = config.PathTemplate, string(p.Template.V)
		case p.Regex.IsSet():
			m.Kind, m.Path = config.PathRegex, string(p.Regex.V)
		case p.Prefix.IsSet():
			m.Kind, m.Path = config.PathPrefix, string(p.Prefix.V)
			if len(m.Path) > 1 {
				m.Path = strings.TrimSuffix(m.Path, "/")
			}
		}
	}
	return m
}

// distinct keeps the first of each, in order.
func distinct(words []string) []string {
	var out []string
	for _, w := range words {
		if !slices.Contains(out, w) {
			out = append(out, w)
		}
	}
	return out
}

func conditions(written strictyaml.Map[syntax.Condition]) []config.Condition {
	var out []config.Condition
	for i := range written.Items {
		s := &written.Items[i].Value
		c := config.Condition{Name: written.Items[i].Key.V}
		switch {
		case s.Exact.IsSet():
			c.Op, c.Value = config.Equals, s.Exact.V
		case s.Prefix.IsSet():
			c.Op, c.Value = config.HasPrefix, s.Prefix.V
		case s.Regex.IsSet():
			c.Op, c.Value = config.Matches, string(s.Regex.V)
		case s.Present.IsSet() && s.Present.V:
			c.Op = config.Present
		default:
			c.Op = config.Absent
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(x, y config.Condition) int { return cmp.Compare(x.Name, y.Name) })
	return out
}

// ties refuses two routes of equal rank that one request could match both.
func (b *builder) ties(g *config.Gateway) {
	every := listenersOf(g)
	routes, policies := make([]overlap.Route, len(g.Routes)), make([]string, len(g.Routes))
	for i, r := range g.Routes {
		if !b.doubts.match[r] { // an empty claim meets nobody's
			routes[i] = claim(r, every)
		}
		policies[i] = policyKey(r)
	}
	b.parted(g, routes, policies)
	for _, tie := range overlap.Find(routes) {
		one, two := g.Routes[tie.First], g.Routes[tie.Second]
		what := "the same hosts, path and methods"
		if routes[tie.Second].Kind != overlap.Literal {
			what = "hosts, methods and paths that overlap, at equal rank"
		}
		b.fault(strictyaml.Pos(two.Pos), "routes["+two.Name+"]", "ties with routes[%s] (%s:%d:%d): both have %s; give one a priority",
			one.Name, one.Pos.File, one.Pos.Line, one.Pos.Col, what)
	}
}

// listenersOf are those that a route without listeners is on.
func listenersOf(g *config.Gateway) []string {
	var every []string
	for _, l := range g.Listeners {
		every = append(every, l.Name)
	}
	return listed(distinct(every), []string{""})
}

// claim is what decides the rank of a route.
func claim(r *config.Route, every []string) overlap.Route {
	if r.Match.Path == "" && r.Match.Kind != config.PathAny {
		return overlap.Route{} // faulty already; without hosts and listeners it ties with nothing
	}
	out := overlap.Route{
		Listeners: listed(r.Listeners, every), Hosts: listed(r.Match.Hosts, []string{""}),
		Path: "prefix " + r.Match.Path, Priority: r.Priority, Methods: methodBits(r.Match.Methods), Conditions: conditionKey(r.Match),
	}
	switch r.Match.Kind {
	case config.PathAny:
		out.Path = "prefix /"
	case config.PathExact:
		out.Path = "exact " + r.Match.Path
	case config.PathTemplate:
		out.Kind, out.Path = overlap.Template, r.Match.Path
	case config.PathRegex:
		out.Kind, out.Path = overlap.Regex, r.Match.Path
	}
	return out
}

// policyKey is equal for routes of equal auth and authorize.
func policyKey(r *config.Route) string {
	rules := slices.Clone(r.Authorize)
	for i := range rules {
		rules[i].Pos = config.Pos{} // where a rule is written does not matter
	}
	return fmt.Sprintf("%#v %#v", r.Auth, rules)
}

// parted warns of routes with different policies that only a condition parts.
func (b *builder) parted(g *config.Gateway, routes []overlap.Route, policies []string) {
	for _, pair := range overlap.Parted(routes, policies) {
		one, two := g.Routes[pair.First], g.Routes[pair.Second]
		b.warn(strictyaml.Pos(two.Pos), "routes["+two.Name+"]", "only a condition on the query, a header or a cookie parts it from routes[%s] (%s:%d:%d), which has another auth or authorize: "+
			"the client chooses between the two; give both the same, and decide in authorize", one.Name, one.Pos.File, one.Pos.Line, one.Pos.Col)
	}
}

// methodBits has a bit for every method; GET includes HEAD, none written is all.
func methodBits(methods []string) uint16 {
	var out uint16
	for i, m := range contract.Methods() {
		if len(methods) == 0 || slices.Contains(methods, m) || (m == "HEAD" && slices.Contains(methods, "GET")) {
			out |= 1 << i
		}
	}
	return out
}

func conditionKey(m config.Match) string {
	if len(m.Headers)+len(m.Query)+len(m.Cookies) == 0 {
		return ""
	}
	return fmt.Sprintf("%#v %#v %#v", m.Headers, m.Query, m.Cookies)
}

// listed is what is written, or else what counts.
func listed(written, unset []string) []string {
	if len(written) == 0 {
		return unset
	}
	return written
}
