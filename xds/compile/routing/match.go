package routing

import (
	"cmp"
	"regexp"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"tollgate/internal/oneview"
	"tollgate/xds/compile/field"
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
	order      int // in the file
	seq        int // within a route of the file
}

func (a *rank) compare(b *rank) int {
	return cmp.Or(
		cmp.Compare(b.priority, a.priority), cmp.Compare(a.host, b.host), cmp.Compare(a.kind, b.kind), cmp.Compare(a.shape, b.shape),
		cmp.Compare(b.length, a.length), cmp.Compare(a.path, b.path), cmp.Compare(b.conditions, a.conditions),
		cmp.Compare(a.order, b.order), cmp.Compare(a.seq, b.seq),
	)
}

// rankOf places a route of the file, its host apart.
func rankOf(r *config.Route, order int) rank {
	out := rank{
		priority: r.Priority, path: r.Match.Path, order: order,
		conditions: len(r.Match.Headers) + len(r.Match.Query) + len(r.Match.Cookies),
	}
	switch r.Match.Kind {
	case config.PathExact:
		out.kind = 0
	case config.PathTemplate:
		out.kind, out.path, out.shape = 1, templateRegex(r.Match.Path, false), templateShape(r.Match.Path)
	case config.PathRegex:
		out.kind, out.length = 2, len(r.Match.Path)
	case config.PathAny:
		out.kind, out.path, out.length = 3, "/", 1
	case config.PathPrefix:
		out.kind, out.length = 3, len(r.Match.Path)
	}
	return out
}

// matchPath matches the path of a route and nothing else.
func matchPath(m *config.Match) *routev3.RouteMatch {
	switch m.Kind {
	case config.PathExact:
		if strings.Contains(m.Path, "%") {
			return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_SafeRegex{SafeRegex: field.Regex(literalPath(m.Path))}}
		}
		return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: m.Path}}
	case config.PathTemplate:
		return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_SafeRegex{SafeRegex: field.Regex(templateRegex(m.Path, false))}}
	case config.PathRegex:
		return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_SafeRegex{SafeRegex: field.Regex(m.Path)}}
	case config.PathPrefix:
		if strings.Contains(m.Path, "%") {
			return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_SafeRegex{SafeRegex: field.Regex(literalPath(m.Path) + "(?:/.*)?")}}
		}
		if m.Path != "/" {
			return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: m.Path}}
		}
	case config.PathAny:
	}
	return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
}

// literalPath is RE2 for a path whose escapes may be in upper and lower case:
// both are one path to who decodes them.
func literalPath(path string) string {
	before, rest, escaped := strings.Cut(path, "%")
	if !escaped || len(rest) < 2 {
		return regexp.QuoteMeta(path)
	}
	return regexp.QuoteMeta(before) + "%(?i:" + rest[:2] + ")" + literalPath(rest[2:])
}

// match matches what the route of the file matches, methods apart.
func match(m *config.Match) *routev3.RouteMatch {
	out := matchPath(m)
	for _, c := range m.Headers {
		out.Headers = append(out.Headers, headerCondition(c))
	}
	for _, c := range m.Query {
		if c.Op == config.Matches {
			out.QueryParameters = append(out.QueryParameters, queryPattern(c))
			continue
		}
		out.Headers = append(out.Headers, queryCondition(c))
	}
	for _, c := range m.Cookies {
		out.Headers = append(out.Headers, cookieCondition(c))
	}
	return out
}

func headerCondition(c config.Condition) *routev3.HeaderMatcher {
	switch c.Op {
	case config.Present:
		return field.HeaderPresent(c.Name, true)
	case config.Absent:
		return field.HeaderPresent(c.Name, false)
	case config.Equals, config.HasPrefix, config.Matches:
	}
	return field.Header(c.Name, comparison(c))
}

func comparison(c config.Condition) *matcherv3.StringMatcher {
	switch c.Op {
	case config.HasPrefix:
		return field.Prefix(c.Value)
	case config.Matches:
		return field.Pattern(c.Value)
	case config.Equals, config.Present, config.Absent:
	}
	return field.Exact(c.Value)
}

// queryCondition compares decoded names and values, which Envoy's own matcher
// of parameters cannot: it looks at the raw target, for every spelling. That
// there is only one of the name is package guard's to see to.
func queryCondition(c config.Condition) *routev3.HeaderMatcher {
	pattern := oneview.HasPattern(c.Name)
	switch c.Op {
	case config.Equals:
		pattern = oneview.EqualsPattern(c.Name, c.Value)
	case config.HasPrefix:
		pattern = oneview.BeginsPattern(c.Name, c.Value)
	case config.Present, config.Absent, config.Matches:
	}
	m := field.Header(":path", field.Pattern(pattern))
	m.InvertMatch = c.Op == config.Absent
	return m
}

// queryPattern compares the value as it is written: package guard refuses one
// that is written in another way.
func queryPattern(c config.Condition) *routev3.QueryParameterMatcher {
	return &routev3.QueryParameterMatcher{Name: c.Name, QueryParameterMatchSpecifier: &routev3.QueryParameterMatcher_StringMatch{
		StringMatch: field.Pattern(c.Value),
	}}
}

// cookieCondition looks into the cookie header: a request with several lines
// of it has them joined.
func cookieCondition(c config.Condition) *routev3.HeaderMatcher {
	value := `[^;]*`
	switch c.Op {
	case config.Equals:
		value = regexp.QuoteMeta(c.Value)
	case config.HasPrefix:
		value = regexp.QuoteMeta(c.Value) + value
	case config.Matches:
		value = "(?:" + c.Value + ")"
	case config.Present, config.Absent:
	}
	m := field.Header("cookie", field.Pattern(`(?:.*;)?\s*`+regexp.QuoteMeta(c.Name)+`="?`+value+`"?\s*(?:;.*)?`))
	if c.Op == config.Absent {
		m.InvertMatch, m.TreatMissingHeaderAsEmpty = true, true
	}
	return m
}

// withMethods adds a condition on the method; none for no methods.
func withMethods(m *routev3.RouteMatch, methods []string) *routev3.RouteMatch {
	switch len(methods) {
	case 0:
		return m
	case 1:
		return withHeader(m, field.Header(":method", field.Exact(methods[0])))
	}
	quoted := make([]string, len(methods))
	for i, method := range methods {
		quoted[i] = regexp.QuoteMeta(method)
	}
	return withHeader(m, field.Header(":method", field.Pattern(strings.Join(quoted, "|"))))
}

// withHeader is m with one more condition; m keeps its own.
func withHeader(m *routev3.RouteMatch, h *routev3.HeaderMatcher) *routev3.RouteMatch {
	headers := make([]*routev3.HeaderMatcher, 0, len(m.GetHeaders())+1)
	return &routev3.RouteMatch{
		PathSpecifier: m.GetPathSpecifier(), QueryParameters: m.GetQueryParameters(),
		Headers: append(append(headers, m.GetHeaders()...), h),
	}
}

// eachPart calls literal and variable for the parts of a template in turn.
func eachPart(template string, literal, variable func(string)) {
	for template != "" {
		before, rest, found := strings.Cut(template, "{")
		literal(before)
		if !found {
			return
		}
		name, after, _ := strings.Cut(rest, "}")
		variable(name)
		template = after
	}
}

// templateRegex matches whole paths of a template; a variable is one segment
// or a part of one, captured if asked.
func templateRegex(template string, capture bool) string {
	var b strings.Builder
	variable := "[^/]+"
	if capture {
		variable = "([^/]+)"
	}
	eachPart(template, func(s string) { b.WriteString(literalPath(s)) }, func(string) { b.WriteString(variable) })
	return b.String()
}

// templateShape sorts templates: a literal before a variable, from the left.
func templateShape(template string) string {
	var b strings.Builder
	for _, segment := range strings.Split(strings.TrimPrefix(template, "/"), "/") {
		if strings.Contains(segment, "{") {
			b.WriteByte('v')
		} else {
			b.WriteByte('l')
		}
	}
	return b.String()
}
