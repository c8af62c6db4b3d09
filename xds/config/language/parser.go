package language

import (
	"slices"

	"tollgate/internal/celenv"
	"tollgate/internal/strictyaml"
	"tollgate/xds/config"
	"tollgate/xds/config/check"
	"tollgate/xds/config/inherit"
	"tollgate/xds/config/overlap"
	"tollgate/xds/config/parts"
	"tollgate/xds/config/syntax"
)

// Parser parses one set of sources after the other, each mostly what the one
// before was. What did not change is not decoded, checked or made again, and the
// routes of which that is so are the very same ones. It returns what Parse
// returns, byte for byte; whatever is not right is left to Parse to say. It is for
// one goroutine.
type Parser struct {
	cel   *celenv.Env
	files *parts.Files[product]
	turn  uint64 // counts the sets

	// Of the last set whose parts were all right:
	checker *check.Checker
	epoch   uint64 // counts the changes of names
	made    []*product
	names   map[string]int // groups and routes
	twice   int            // names that stand for two
	every   []string       // listeners
	index   overlap.Index
}

// NewParser returns a Parser that has seen nothing.
func NewParser() (*Parser, error) {
	cel, err := celenv.New()
	if err != nil {
		return nil, err
	}
	return &Parser{cel: cel, files: parts.New[product](), names: map[string]int{}}, nil
}

// Parse is the function Parse, at the cost of what changed.
func (p *Parser) Parse(sources []config.Source, resolve config.Resolve) (*config.Gateway, []config.Fault, error) {
	p.turn++
	if files := p.files.Read(sources, resolve); len(files) > 0 {
		b, g := &builder{}, &config.Gateway{}
		if p.build(b, files, g, resolve) && len(b.faults) == 0 {
			return g, ordered(b.warnings, sources), nil
		}
	}
	return Parse(sources, resolve)
}

// build makes the model of files without a fault; false if they do not fit each
// other, or may not.
func (p *Parser) build(b *builder, files []*file, g *config.Gateway, resolve config.Resolve) bool {
	rest := make([]*syntax.File, len(files))
	for i, f := range files {
		rest[i] = f.Rest
	}
	defaults := b.defaults(rest)
	m := &maker{Parser: p, into: b, inherited: inherit.From(defaults), resolve: resolve}
	for _, f := range files {
		if f.Rest.Defaults != nil {
			m.defaults, m.line = f.Defaults, f.DefaultsLine
		}
	}
	m.checker = check.New(
		p.cel,
		func(pos strictyaml.Pos, path, format string, args ...any) { m.into.fault(pos, path, format, args...) },
		func(pos strictyaml.Pos, path, format string, args ...any) { m.into.warn(pos, path, format, args...) },
	)
	m.checker.Files(rest)
	made, ok := m.all(files, g)
	if !ok {
		return false
	}
	for _, f := range rest {
		b.file(f, g)
	}
	b.telemetry(rest, g)
	b.openPorts(g.Listeners)
	b.plaintext(g)
	p.account(made, g)
	if p.twice > 0 || p.index.Tied() {
		return false
	}
	if p.index.Parted() {
		routes, policies := p.claimed()
		b.parted(g, routes, policies)
	}
	return true
}

// all makes the products of all files, and of them the upstreams and routes.
func (m *maker) all(files []*file, g *config.Gateway) ([]*product, bool) {
	for _, f := range files {
		for i, at := range f.Upstreams {
			m.checker.UpstreamName(at.Part.Upstream, inherit.Element(parts.Upstreams, string(at.Part.Upstream.Name.V), i))
		}
	}
	if m.Parser.checker == nil || !m.checker.Alike(m.Parser.checker) {
		m.epoch++
	}
	m.Parser.checker = m.checker
	var made []*product
	for _, list := range []func(*file) []place{
		func(f *file) []place { return f.Upstreams }, func(f *file) []place { return f.Routes },
	} {
		for _, f := range files {
			places := list(f)
			for i := range places {
				one := m.of(f, &places[i], i)
				if one == nil {
					return nil, false
				}
				made = append(made, one)
				m.into.warnings = append(m.into.warnings, one.warnings...)
				g.Routes = append(g.Routes, one.routes...)
				if one.upstream != nil {
					g.Upstreams = append(g.Upstreams, *one.upstream)
				}
			}
		}
	}
	return made, true
}

// account takes what came into the names and the index, and what went out of them.
func (p *Parser) account(made []*product, g *config.Gateway) {
	if every := listenersOf(g); !slices.Equal(every, p.every) {
		for _, one := range p.made {
			p.leave(one)
		}
		p.made, p.every = nil, every
	}
	for _, one := range made {
		one.turn = p.turn
	}
	for _, one := range p.made {
		if one.turn != p.turn {
			p.leave(one)
		}
	}
	for _, one := range made {
		p.enter(one)
	}
	p.made = made
}

func (p *Parser) enter(one *product) {
	if one.counts {
		return
	}
	one.counts = true
	for _, name := range one.names {
		if p.names[name]++; p.names[name] == 2 {
			p.twice++
		}
	}
	for _, r := range one.routes {
		c := &overlap.Claim{Route: claim(r, p.every), Policy: policyKey(r)}
		one.claims = append(one.claims, c)
		p.index.Add(c)
	}
}

func (p *Parser) leave(one *product) {
	one.counts = false
	for _, name := range one.names {
		switch p.names[name]--; p.names[name] {
		case 1:
			p.twice--
		case 0:
			delete(p.names, name)
		}
	}
	for _, c := range one.claims {
		p.index.Remove(c)
	}
	one.claims = nil
}

// claimed are the claims of all routes, in their order.
func (p *Parser) claimed() (routes []overlap.Route, policies []string) {
	for _, one := range p.made {
		for _, c := range one.claims {
			routes, policies = append(routes, c.Route), append(policies, c.Policy)
		}
	}
	return routes, policies
}
