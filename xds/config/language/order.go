package language

import (
	"cmp"
	"fmt"
	"slices"

	"tollgate/xds/config"
)

// maxFaults is how many faults an operator is shown at once.
const maxFaults = 100

// ordered sorts by the order of the sources and the position in them, drops
// repetitions (one bad default shows in every route that inherits it) and cuts
// after maxFaults.
func ordered(faults []config.Fault, sources []config.Source) []config.Fault {
	rank := make(map[string]int, len(sources))
	for i, s := range sources {
		rank[s.Name] = i
	}
	slices.SortStableFunc(faults, func(a, b config.Fault) int {
		return cmp.Or(
			cmp.Compare(rank[a.Pos.File], rank[b.Pos.File]),
			cmp.Compare(a.Pos.Line, b.Pos.Line),
			cmp.Compare(a.Pos.Col, b.Pos.Col),
		)
	})
	seen := make(map[config.Fault]bool, len(faults))
	kept := faults[:0]
	for _, f := range faults {
		key := config.Fault{Pos: f.Pos, Message: f.Message}
		if !seen[key] {
			seen[key] = true
			kept = append(kept, f)
		}
	}
	if more := len(kept) - maxFaults; more > 0 {
		kept = append(kept[:maxFaults:maxFaults], config.Fault{Message: fmt.Sprintf("and %d more", more), Warning: kept[0].Warning})
	}
	return kept
}
