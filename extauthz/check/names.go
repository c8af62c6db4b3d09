package check

import (
	"slices"
	"strings"
	"unicode/utf8"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"tollgate/internal/celenv"
	"tollgate/internal/oneview"
)

const otherName = "has a name that some take for one that rules look at"

// named collects the headers and parameters that rules look at, each of which
// must be there at most once and no larger than the cost of rules assumes:
// decoders differ in which of two they take.
func named(h *authv3.AttributeContext_HttpRequest, target *oneview.Target, looks celenv.Looks) (headers, query map[string]string, fault string) {
	if looks.Path && (len(target.Segments) > celenv.MaxEntries || len(target.Path) > celenv.MaxText) {
		return nil, nil, "the path is too long for the rules that look at it"
	}
	if looks.AllHeaders || len(looks.Headers) > 0 {
		headers = map[string]string{}
		wanted := func(name string) bool {
			return !strings.HasPrefix(name, ":") && (looks.AllHeaders || slices.Contains(looks.Headers, name))
		}
		lines(h, wanted, func(name, value string) {
			problem := add(headers, name, value)
			if strings.ContainsFunc(value, func(r rune) bool { return r >= utf8.RuneSelf }) {
				problem = "that rules look at has bytes beyond ASCII" // text of UTF-8 to some, of ISO 8859-1 to others
			}
			if problem != "" {
				fault = "a header " + problem
			}
		})
	}
	if looks.AllQuery || len(looks.Query) > 0 {
		query = map[string]string{}
		for _, p := range target.Parameters {
			problem := ""
			switch {
			case oneview.Ragged(p.Name), looks.AllQuery && oneview.Folded(p.Name), aliased(p.Name, looks.Query):
				problem = otherName
			case looks.AllQuery || slices.Contains(looks.Query, p.Name):
				problem = add(query, p.Name, p.Value)
			}
			if problem != "" {
				fault = "a query parameter " + problem
			}
		}
	}
	return headers, query, fault
}

// aliased reports whether a name is none of those, but some take it for one.
func aliased(name string, of []string) bool {
	return !slices.Contains(of, name) && slices.ContainsFunc(of, func(other string) bool { return oneview.Alias(name, other) })
}

func add(to map[string]string, name, value string) (problem string) {
	switch _, twice := to[name]; {
	case twice:
		return "that rules look at is there twice"
	case len(value) > celenv.MaxText:
		return "that rules look at is too long"
	case len(to) >= celenv.MaxEntries:
		return "is one too many"
	}
	to[name] = value
	return ""
}
