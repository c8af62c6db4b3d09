package language

import (
	"bytes"
	"math"

	"tollgate/xds/config"
	"tollgate/xds/config/check"
	"tollgate/xds/config/inherit"
	"tollgate/xds/config/overlap"
	"tollgate/xds/config/parts"
)

// product is what was made of one part. It is not changed once made, but for
// what the Parser keeps of it to itself.
type product struct {
	defaults     *config.Edition // that it inherited
	defaultsLine int
	borrowed     bool // it holds positions of the defaults
	uses         []check.Use

	file  string
	line  int // where the part stood: positions from here on are its own,
	lines int // so many of them
	// names of groups and routes, and the routes alone; or the upstream.
	names    []string
	routes   []*config.Route
	upstream *config.Upstream
	warnings []config.Fault

	// Of the Parser:
	epoch  uint64 // of names, in which the uses were seen to hold
	turn   uint64 // in which it was used last
	counts bool   // it is in the index
	claims []*overlap.Claim
	moved  *product // the last copy that stands elsewhere
}

type (
	file  = parts.File[product]
	place = parts.Place[product]
	part  = parts.Part[product]
)

// maker makes products.
type maker struct {
	*Parser
	into      *builder // what is being made
	checker   *check.Checker
	inherited *inherit.Defaults
	defaults  *config.Edition
	line      int // of the defaults
	resolve   config.Resolve
}

// of gives the product of a part where it stands; nil if something is wrong.
func (m *maker) of(f *file, at *place, i int) *product {
	if made := at.Part.Made; made != nil && m.valid(made) {
		return made.at(at.Line)
	}
	if at.Part.Line != at.Line && m.files.Again(f, at, m.resolve) == nil {
		return nil
	}
	at.Part.Made = m.make(at.Part, i)
	return at.Part.Made
}

func (m *maker) valid(made *product) bool {
	if made.defaults != m.defaults || made.borrowed && made.defaultsLine != m.line {
		return false
	}
	if made.epoch != m.epoch {
		for _, u := range made.uses {
			if !m.checker.Holds(u) {
				return false
			}
		}
		made.epoch = m.epoch
	}
	return true
}

func (m *maker) make(from *part, i int) *product {
	made := &product{defaults: m.defaults, defaultsLine: m.line, epoch: m.epoch, line: from.Line, lines: math.MaxInt}
	if from.Text != nil {
		made.lines = bytes.Count(from.Text, []byte("\n")) + 1
	}
	before := m.into
	m.into = &builder{}
	m.checker.Uses(func(u check.Use) { made.uses = append(made.uses, u) })
	if from.Route != nil {
		made.file = from.Route.File
		m.routes(made, m.inherited.Route(nil, from.Route, i))
	} else {
		made.file = from.Upstream.File
		u := m.inherited.Upstream(from.Upstream, i)
		m.checker.Upstream(&u)
		one := upstream(&u)
		one.Edition = &config.Edition{}
		made.upstream = &one
	}
	made.warnings = m.into.warnings
	faulty := len(m.into.faults) > 0
	m.checker.Uses(nil)
	m.into = before
	if faulty {
		return nil
	}
	made.positions(func(pos *config.Pos) { made.borrowed = made.borrowed || !made.own(*pos) })
	return made
}

func (m *maker) routes(made *product, list []inherit.Route) {
	for i := range list {
		r := &list[i]
		m.checker.Route(r)
		made.names = append(made.names, r.Name)
		if r.IsGroup() {
			continue
		}
		one := route(r)
		one.Edition = &config.Edition{}
		m.into.attemptsFit(r.Full, one, r.Path)
		made.routes = append(made.routes, one)
	}
}

// own tells positions in the part from those of what it inherited.
func (made *product) own(pos config.Pos) bool {
	return pos.File == made.file && pos.Line > made.line && pos.Line-made.line <= made.lines
}

// positions calls do for each that the product holds.
func (made *product) positions(do func(*config.Pos)) {
	for _, r := range made.routes {
		do(&r.Pos)
		for i := range r.RateLimit {
			do(&r.RateLimit[i].Pos)
		}
		for i := range r.Authorize {
			do(&r.Authorize[i].Pos)
		}
	}
	if made.upstream != nil {
		do(&made.upstream.Pos)
	}
	for i := range made.warnings {
		do(&made.warnings[i].Pos)
	}
}

// at gives the product as it is where its part stands now.
func (made *product) at(line int) *product {
	if line == made.line {
		return made
	}
	if made.moved != nil && made.moved.line == line {
		return made.moved
	}
	out := *made
	out.line, out.moved, out.counts, out.claims = line, nil, false, nil
	out.routes, out.warnings = make([]*config.Route, len(made.routes)), append([]config.Fault(nil), made.warnings...)
	for i, r := range made.routes {
		one := *r
		one.RateLimit, one.Authorize = append([]config.Limit(nil), r.RateLimit...), append([]config.Rule(nil), r.Authorize...)
		out.routes[i] = &one
	}
	if made.upstream != nil {
		one := *made.upstream
		out.upstream = &one
	}
	out.positions(func(pos *config.Pos) {
		if made.own(*pos) {
			pos.Line += line - made.line
		}
	})
	made.moved = &out
	return &out
}
