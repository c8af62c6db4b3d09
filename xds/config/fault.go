package config

import (
	"fmt"
	"strings"
)

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
