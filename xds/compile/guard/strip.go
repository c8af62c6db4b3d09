package guard

import (
	"regexp"
	"slices"
	"strings"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"

	"tollgate/api/contract"
	"tollgate/xds/compile/field"
)

// Strip takes away what only the gateway, or a trusted proxy of its operator,
// may say, before anything looks at the request.
func Strip(trusted bool) []*mutationv3.HeaderMutation {
	var out []*mutationv3.HeaderMutation
	for _, prefix := range contract.StrippedPrefixes() {
		key := field.Prefix(prefix)
		if kept := suffixes(contract.ForwardedByProxies(), prefix); trusted && len(kept) > 0 {
			key = field.Pattern(regexp.QuoteMeta(prefix) + otherThan(kept))
		}
		out = append(out, &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_RemoveOnMatch_{
			RemoveOnMatch: &mutationv3.HeaderMutation_RemoveOnMatch{KeyMatcher: key},
		}})
	}
	for _, name := range contract.StrippedNames() {
		out = append(out, &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Remove{Remove: name}})
	}
	return out
}

func suffixes(names []string, prefix string) []string {
	var out []string
	for _, name := range names {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			out = append(out, rest)
		}
	}
	return out
}

// otherThan is RE2 for every text but the given words, which RE2 has no operator
// for.
func otherThan(words []string) string {
	next := map[byte][]string{}
	ends := false
	for _, w := range words {
		if w == "" {
			ends = true
			continue
		}
		next[w[0]] = append(next[w[0]], w[1:])
	}
	var first []byte
	for c := range next {
		first = append(first, c)
	}
	if len(first) == 0 {
		return ".+" // the words end here: anything longer is another text
	}
	slices.Sort(first)
	branches := []string{"[^" + regexp.QuoteMeta(string(first)) + "].*"}
	for _, c := range first {
		branches = append(branches, regexp.QuoteMeta(string(c))+otherThan(next[c]))
	}
	if !ends {
		branches = append(branches, "")
	}
	return "(?:" + strings.Join(branches, "|") + ")"
}
