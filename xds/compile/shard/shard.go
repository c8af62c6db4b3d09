// Package shard says in which of a fixed number of parts of a listener's routes
// a request looks and which of them a route must be in. Envoy computes the part
// by itself, from a formula, before it looks for a route. Invariants: every
// request has exactly one part, whatever its host and path are; a route is in
// the part of every request that it can match; where a route is follows from
// itself and the Form alone, so that no edit moves another.
package shard

import (
	"fmt"
	"strconv"
	"strings"
)

// A Form is what parts are told apart by: so many bits of the host and so many
// of one segment of the path.
type Form struct {
	Host  int // bits of the host
	Path  int // bits of the path
	Depth int // which segment of the path they are of, from 1; 0 without any
}

// Forms are those that a listener can have: the first for many hosts, the last
// for one.
func Forms() []Form {
	return []Form{{Host: 9}, {5, 4, 1}, {5, 4, 2}, {5, 4, 3}, {0, 9, 1}, {0, 9, 2}, {0, 9, 3}}
}

// Name is short and unlike that of any other form.
func (f Form) Name() string { return fmt.Sprintf("h%dp%d.%d", f.Host, f.Path, f.Depth) }

// Parts is how many there are; they are numbered from 0.
func (f Form) Parts() int { return 1 << (f.Host + f.Path) }

// Rows is how many values the host's share of a number has.
func (f Form) Rows() int { return 1 << f.Host }

// Columns is how many values the path's share of a number has.
func (f Form) Columns() int { return 1 << f.Path }

// Row is the share of a host that is no pattern, with or without a port.
func (f Form) Row(host string) int {
	name, _, _ := strings.Cut(host, ":")
	return hash(name) & (f.Rows() - 1)
}

// Column is the share of a path, which Envoy has brought into its normal form,
// without its query.
func (f Form) Column(path string) int {
	if f.Path == 0 {
		return 0
	}
	for range f.Depth {
		_, rest, found := strings.Cut(path, "/")
		if !found {
			return 0
		}
		path = rest
	}
	segment, _, _ := strings.Cut(path, "/")
	return hash(segment) & (f.Columns() - 1)
}

// Part is the number of the part in a row and a column.
func (f Form) Part(row, column int) int { return row | column<<f.Host }

// Expression is CEL for the number of a request's part, an integer. Escapes are
// those of a CEL string.
func (f Form) Expression() string {
	var terms []string
	for i := range f.Host {
		terms = append(terms, term("request.host", hostPattern(i), i))
	}
	for i := range f.Path {
		terms = append(terms, term("request.url_path", segmentPattern(i, f.Depth), f.Host+i))
	}
	return strings.Join(terms, "+")
}

func term(attribute, pattern string, bit int) string {
	return "(" + attribute + ".matches('" + strings.ReplaceAll(pattern, `\`, `\\`) + "')?" + strconv.Itoa(1<<bit) + ":0)"
}
