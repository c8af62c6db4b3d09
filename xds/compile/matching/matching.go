// Package matching turns what a route matches into what Envoy matches. Invariant:
// what Envoy compares is what a decoding upstream makes of the request.
package matching

import (
	"regexp"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"tollgate/internal/oneview"
	"tollgate/xds/compile/field"
	"tollgate/xds/config"
)

// Path matches the path of a route and nothing else.
func Path(m *config.Match) *routev3.RouteMatch {
	switch m.Kind {
	case config.PathExact:
		if strings.Contains(m.Path, "%") {
			return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_SafeRegex{SafeRegex: field.Regex(LiteralPath(m.Path))}}
		}
		return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: m.Path}}
	case config.PathTemplate:
		return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_SafeRegex{SafeRegex: field.Regex(TemplateRegex(m.Path, false))}}
	case config.PathRegex:
		return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_SafeRegex{SafeRegex: field.Regex(m.Path)}}
	case config.PathPrefix:
		if strings.Contains(m.Path, "%") {
			return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_SafeRegex{SafeRegex: field.Regex(LiteralPath(m.Path) + "(?:/.*)?")}}
		}
		if m.Path != "/" {
			return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: m.Path}}
		}
	case config.PathAny:
	}
	return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
}

// LiteralPath is RE2 for a path whose escapes may be in upper and lower case:
// both are one path to who decodes them.
func LiteralPath(path string) string {
	before, rest, escaped := strings.Cut(path, "%")
	if !escaped || len(rest) < 2 {
		return regexp.QuoteMeta(path)
	}
	return regexp.QuoteMeta(before) + "%(?i:" + rest[:2] + ")" + LiteralPath(rest[2:])
}

// Of matches what the route of the file matches, methods apart.
func Of(m *config.Match) *routev3.RouteMatch {
	out := Path(m)
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
		out.Headers = append(out.Headers, Cookie(c))
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

// Cookie looks into the cookie header: a request with several lines
// of it has them joined.
func Cookie(c config.Condition) *routev3.HeaderMatcher {
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

// WithMethods adds a condition on the method; none for no methods.
func WithMethods(m *routev3.RouteMatch, methods []string) *routev3.RouteMatch {
	switch len(methods) {
	case 0:
		return m
	case 1:
		return WithHeader(m, field.Header(":method", field.Exact(methods[0])))
	}
	quoted := make([]string, len(methods))
	for i, method := range methods {
		quoted[i] = regexp.QuoteMeta(method)
	}
	return WithHeader(m, field.Header(":method", field.Pattern(strings.Join(quoted, "|"))))
}

// WithHeader is m with one more condition; m keeps its own.
func WithHeader(m *routev3.RouteMatch, h *routev3.HeaderMatcher) *routev3.RouteMatch {
	headers := make([]*routev3.HeaderMatcher, 0, len(m.GetHeaders())+1)
	return &routev3.RouteMatch{
		PathSpecifier: m.GetPathSpecifier(), QueryParameters: m.GetQueryParameters(),
		Headers: append(append(headers, m.GetHeaders()...), h),
	}
}

// EachPart calls literal and variable for the parts of a template in turn.
func EachPart(template string, literal, variable func(string)) {
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

// TemplateRegex matches whole paths of a template; a variable is one segment
// or a part of one, captured if asked.
func TemplateRegex(template string, capture bool) string {
	var b strings.Builder
	variable := "[^/]+"
	if capture {
		variable = "([^/]+)"
	}
	EachPart(template, func(s string) { b.WriteString(LiteralPath(s)) }, func(string) { b.WriteString(variable) })
	return b.String()
}

// TemplateShape sorts templates: a literal before a variable, from the left.
func TemplateShape(template string) string {
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
