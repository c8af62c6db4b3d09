package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxFaults is how many faults an operator is shown at once.
const maxFaults = 100

// Fault is one thing wrong with a gateway file: where, what, and the next step.
type Fault struct {
	Pos     Pos
	Path    string // such as "routes[shop/orders].upstream"
	Message string
	Warning bool
}

// String gives the line that an operator reads:
//
//	gateway.yaml:41:7: routes[shop/orders].upstream: no upstream is named "order"; did you mean "orders"?
func (f Fault) String() string {
	var b strings.Builder
	if f.Warning {
		b.WriteString("warning: ")
	}
	if f.Pos.File != "" {
		fmt.Fprintf(&b, "%s:%d:%d: ", f.Pos.File, f.Pos.Line, f.Pos.Col)
	}
	if f.Path != "" {
		b.WriteString(f.Path)
		b.WriteString(": ")
	}
	b.WriteString(f.Message)
	return b.String()
}

// Faults is every fault of a gateway, sorted by position; after the first
// hundred only their number.
type Faults []Fault

// Error is one fault a line.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, one := range f {
		lines[i] = one.String()
	}
	return strings.Join(lines, "\n")
}

// ordered sorts by the order of the sources and the position in them, drops
// repetitions (one bad default shows in every route that inherits it) and cuts
// after maxFaults.
func ordered(faults []Fault, sources []Source) []Fault {
	rank := make(map[string]int, len(sources))
	for i, s := range sources {
		rank[s.Name] = i
	}
	slices.SortStableFunc(faults, func(a, b Fault) int {
		return cmp.Or(
			cmp.Compare(rank[a.Pos.File], rank[b.Pos.File]),
			cmp.Compare(a.Pos.Line, b.Pos.Line),
			cmp.Compare(a.Pos.Col, b.Pos.Col),
		)
	})
	seen := make(map[Fault]bool, len(faults))
	kept := faults[:0]
	for _, f := range faults {
		key := Fault{Pos: f.Pos, Message: f.Message}
		if !seen[key] {
			seen[key] = true
			kept = append(kept, f)
		}
	}
	if more := len(kept) - maxFaults; more > 0 {
		kept = append(kept[:maxFaults:maxFaults], Fault{Message: fmt.Sprintf("and %d more", more), Warning: kept[0].Warning})
	}
	return kept
}
