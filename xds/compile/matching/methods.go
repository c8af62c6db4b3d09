package matching

import (
	"cmp"
	"slices"

	"tollgate/api/contract"
)

// WithHead adds HEAD wherever GET is.
func WithHead(methods []string) []string {
	if !slices.Contains(methods, "GET") || slices.Contains(methods, "HEAD") {
		return methods
	}
	out := append(slices.Clone(methods), "HEAD")
	slices.SortFunc(out, CompareMethods)
	return out
}

// CompareMethods sorts in the order people write them in.
func CompareMethods(a, b string) int {
	known := contract.Methods()
	index := func(m string) int {
		if i := slices.Index(known, m); i >= 0 {
			return i
		}
		return len(known)
	}
	return cmp.Or(cmp.Compare(index(a), index(b)), cmp.Compare(a, b))
}
