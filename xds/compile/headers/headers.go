// Package headers turns the header edits of the language into Envoy's.
// Invariant: what is removed by name is the route's own to do, what is removed by
// the beginning of a name the header mutation filter's.
package headers

import (
	"strings"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	headerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"

	"tollgate/xds/compile/field"
	"tollgate/xds/config"
)

// Additions are the headers of a route that are set or added.
func Additions(e config.HeaderEdit) []*corev3.HeaderValueOption {
	var out []*corev3.HeaderValueOption
	for _, h := range e.Set {
		out = append(out, field.SetHeader(h.Name, h.Value))
	}
	for _, h := range e.Add {
		out = append(out, field.AddHeader(h.Name, h.Value))
	}
	return out
}

// Removals are the names to remove; prefixes are the header mutation filter's.
func Removals(e config.HeaderEdit) []string {
	var out []string
	for _, name := range e.Remove {
		if !strings.HasSuffix(name, "*") {
			out = append(out, name)
		}
	}
	return out
}

// PrefixRemovals is what the header mutation filter does on a route; nil for
// nothing.
func PrefixRemovals(r *config.Route) *headerv3.HeaderMutationPerRoute {
	request, response := prefixMutations(r.RequestHeaders.Remove), prefixMutations(r.ResponseHeaders.Remove)
	if request == nil && response == nil {
		return nil
	}
	return &headerv3.HeaderMutationPerRoute{Mutations: &headerv3.Mutations{RequestMutations: request, ResponseMutations: response}}
}

func prefixMutations(names []string) []*mutationv3.HeaderMutation {
	var out []*mutationv3.HeaderMutation
	for _, name := range names {
		if prefix, ok := strings.CutSuffix(name, "*"); ok {
			out = append(out, RemovePrefix(prefix))
		}
	}
	return out
}

// RemovePrefix removes all headers whose names begin so.
func RemovePrefix(prefix string) *mutationv3.HeaderMutation {
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_RemoveOnMatch_{
		RemoveOnMatch: &mutationv3.HeaderMutation_RemoveOnMatch{KeyMatcher: field.Prefix(prefix)},
	}}
}
