package contract_test

import (
	"slices"
	"strings"
	"testing"

	"tollgate/api/contract"
)

// TestStripList: names are compared in lower case, each is there once, and none
// is covered by a prefix already.
func TestStripList(t *testing.T) {
	names := contract.StrippedNames()
	for i, name := range names {
		covered := slices.ContainsFunc(contract.StrippedPrefixes(), func(p string) bool { return strings.HasPrefix(name, p) })
		if name != strings.ToLower(name) || slices.Contains(names[:i], name) || covered {
			t.Errorf("%s: upper case, there twice or covered by a prefix", name)
		}
	}
	for _, name := range contract.ForwardedByProxies() {
		if !strings.HasPrefix(name, "x-forwarded-") {
			t.Errorf("%s is not of the family that a trusted proxy speaks", name)
		}
	}
}
