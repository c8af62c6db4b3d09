package trial_test

import (
	"fmt"
	"math/bits"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"tollgate/xds/push/trial"
)

func names(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("c%04d", i))
	}
	return out
}

// try runs a trial to its end; it returns what was taken, what was refused by
// itself or given up, and how many responses it cost.
func try(t interface{ Fatalf(string, ...any) }, tr *trial.Trial, bad func(string) bool) (taken, refused []string, responses int) {
	for group := tr.Next(); group != nil; group = tr.Next() {
		if tr.Next() != nil {
			t.Fatalf("two groups on trial at once")
		}
		responses++
		if !slices.ContainsFunc(group, bad) {
			taken = append(taken, group...)
			tr.Taken()
			continue
		}
		unclear := group
		if len(group) == 1 {
			refused, unclear = append(refused, group...), nil
		}
		refused = append(refused, tr.Refused(unclear)...)
	}
	if !tr.Over() || tr.Waits() != nil {
		t.Fatalf("not over")
	}
	return taken, refused, responses
}

// TestRefusesEverything: one that takes nothing costs about the logarithm of
// what it is sent.
func TestRefusesEverything(t *testing.T) {
	for _, n := range []int{2, 3, 4, 16, 1_000, 10_000} {
		var tr trial.Trial
		tr.Suspect(names(n))
		taken, refused, responses := try(t, &tr, func(string) bool { return true })
		if bound := 2 * bits.Len(uint(n)); responses > bound || len(taken) > 0 || len(refused) != n {
			t.Errorf("%d: %d responses of at most %d, %d taken, %d refused", n, responses, bound, len(taken), len(refused))
		}
	}
}

// TestNeighboursOfTheBad: neighbours that are all bad do not hide the good.
func TestNeighboursOfTheBad(t *testing.T) {
	var tr trial.Trial
	tr.Suspect(names(1_000))
	taken, refused, responses := try(t, &tr, func(name string) bool { return name < "c0004" })
	if len(taken) != 996 || len(refused) != 4 || responses > 40 {
		t.Fatalf("%d taken, %d refused, %d responses", len(taken), len(refused), responses)
	}
}

// TestFindsTheBad: whatever is bad, nothing is lost and nothing bad is taken;
// a client that takes something is never given up.
func TestFindsTheBad(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		all := names(rapid.IntRange(2, 60).Draw(rt, "n"))
		bad := map[string]bool{}
		for range rapid.IntRange(1, 4).Draw(rt, "bad ones") {
			bad[rapid.SampledFrom(all).Draw(rt, "bad")] = true
		}
		var tr trial.Trial
		tr.Suspect(all)
		taken, refused, _ := try(rt, &tr, func(name string) bool { return bad[name] })
		both := slices.Concat(taken, refused)
		if slices.Sort(both); !slices.Equal(both, all) {
			rt.Fatalf("of %v came %v", all, both)
		}
		if slices.ContainsFunc(taken, func(name string) bool { return bad[name] }) {
			rt.Fatalf("taken %v with bad %v", taken, bad)
		}
		if len(all) > 20 && len(refused) > len(bad) {
			rt.Fatalf("%d of %d refused for %d bad ones", len(refused), len(all), len(bad))
		}
	})
}

// TestWithoutAnswer: a group of which nothing is heard holds nobody up.
func TestWithoutAnswer(t *testing.T) {
	var tr trial.Trial
	tr.Join([]string{"a", "b"})
	tr.Join(nil)
	if first := tr.Next(); !slices.Equal(first, []string{"a", "b"}) || tr.Over() {
		t.Fatalf("%v", first)
	}
	tr.Unanswered()
	if tr.Next() != nil || !tr.Over() {
		t.Fatal("it goes on")
	}
}
