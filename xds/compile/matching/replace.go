package matching

import (
	"strconv"
	"strings"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"tollgate/xds/compile/field"
	"tollgate/xds/config"
)

// LiteralSubstitution keeps "\1" in a path from meaning a group.
func LiteralSubstitution(s string) string { return strings.ReplaceAll(s, `\`, `\\`) }

// ReplacePrefix replaces the matched prefix so that no slash is doubled or
// lost: Envoy's own prefix rewrite makes "//b" of "/a/b" for "/a" → "/".
func ReplacePrefix(m *config.Match, prefix string) *matcherv3.RegexMatchAndSubstitute {
	bare := strings.TrimSuffix(prefix, "/")
	if m.Kind == config.PathExact {
		return &matcherv3.RegexMatchAndSubstitute{Pattern: field.Regex("^.*$"), Substitution: LiteralSubstitution(prefix)}
	}
	from := ""
	if m.Kind == config.PathPrefix && m.Path != "/" {
		from = m.Path
	}
	if bare == "" || from == "" {
		return &matcherv3.RegexMatchAndSubstitute{Pattern: field.Regex("^" + LiteralPath(from) + "/?"), Substitution: LiteralSubstitution(bare) + "/"}
	}
	return &matcherv3.RegexMatchAndSubstitute{Pattern: field.Regex("^" + LiteralPath(from)), Substitution: LiteralSubstitution(bare)}
}

// FillTemplate moves the variables of the matched template into another.
func FillTemplate(from, to string) *matcherv3.RegexMatchAndSubstitute {
	groups := map[string]int{}
	EachPart(from, func(string) {}, func(name string) { groups[name] = len(groups) + 1 })
	var b strings.Builder
	EachPart(to, func(s string) { b.WriteString(LiteralSubstitution(s)) }, func(name string) { b.WriteString(`\` + strconv.Itoa(groups[name])) })
	return &matcherv3.RegexMatchAndSubstitute{Pattern: field.Regex("^" + TemplateRegex(from, true) + "$"), Substitution: b.String()}
}
