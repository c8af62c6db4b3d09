package overlap_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"tollgate/xds/config/overlap"
)

func made(random *rand.Rand) *overlap.Claim {
	pick := func(words ...string) string { return words[random.IntN(len(words))] }
	c := &overlap.Claim{Policy: pick("p", "q"), Route: overlap.Route{
		Listeners: [][]string{{"a"}, {"b"}, {"a", "b"}}[random.IntN(3)], Hosts: [][]string{{""}, {"x"}, {"", "x"}, {"y"}}[random.IntN(4)],
		Kind: overlap.Kind(random.IntN(3)), Priority: random.IntN(2), Conditions: pick("", "", "h"), Methods: uint16(1 + random.IntN(3)),
	}}
	switch c.Kind {
	case overlap.Literal:
		c.Path = fmt.Sprint("prefix /", random.IntN(40))
	case overlap.Template:
		c.Path = pick("/{a}/x", "/{b}/x", "/{a}/y", "/z/{a}")
	case overlap.Regex:
		c.Path = pick("/a.*", "/b.*", "/ab.", "/ac.", "^/a.")
	}
	return c
}

// TestIndex: whatever came and went, an index that says that nobody ties or is
// parted is right, and it says so of most sets of which it is true.
func TestIndex(t *testing.T) {
	quiet, said := 0, 0
	for seed := range uint64(400) {
		random := rand.New(rand.NewPCG(seed, 1))
		var x overlap.Index
		var in []*overlap.Claim
		for range 40 {
			if len(in) > 0 && random.IntN(5) < 2 {
				i := random.IntN(len(in))
				x.Remove(in[i])
				in = slices.Delete(in, i, i+1)
			} else {
				in = append(in, made(random))
				x.Add(in[len(in)-1])
			}
			var routes []overlap.Route
			var policies []string
			for _, c := range in {
				routes, policies = append(routes, c.Route), append(policies, c.Policy)
			}
			for _, check := range []struct {
				found int
				says  bool
			}{{len(overlap.Find(routes)), x.Tied()}, {len(overlap.Parted(routes, policies)), x.Parted()}} {
				if check.found > 0 && !check.says {
					t.Fatalf("seed %d: %d found among %+v, the index says none", seed, check.found, routes)
				}
				if check.found == 0 {
					quiet++
					if !check.says {
						said++
					}
				}
			}
		}
		for _, c := range in {
			x.Remove(c)
		}
		if x.Tied() || x.Parted() {
			t.Fatalf("seed %d: of no routes, it says something", seed)
		}
	}
	if said < quiet*9/10 {
		t.Errorf("of %d sets without any, it knew %d", quiet, said)
	}
}

// TestIndexOfMany: more routes of one rank than are compared are left to Find.
func TestIndexOfMany(t *testing.T) {
	var x overlap.Index
	var in []*overlap.Claim
	for i := range 100 {
		in = append(in, &overlap.Claim{Route: overlap.Route{Listeners: []string{"a"}, Hosts: []string{""}, Path: "prefix /", Methods: 1, Conditions: fmt.Sprint(i)}})
		x.Add(in[i])
	}
	if x.Tied() || !x.Parted() {
		t.Error("conditions part them, whether policies differ is not known of so many")
	}
	for _, c := range in[2:] {
		x.Remove(c)
	}
	if x.Parted() {
		t.Error("two of one policy")
	}
}
