package compile

import (
	"fmt"
	"slices"

	"tollgate/xds/compile/routing"
	"tollgate/xds/compile/shard"
	"tollgate/xds/config"
	"tollgate/xds/release"
)

// Compiler compiles one gateway after the other, each mostly what the one before
// was. Routes and upstreams that say the same (config.Edition) are not compiled or
// encoded again if what they rely on is the same too. It returns what Compile
// returns, in no order, and the route configurations encoded. It is for one
// goroutine.
type Compiler struct {
	routing   *routing.Memory
	routes    map[*config.Edition]*compiled
	upstreams map[*config.Edition]*compiled
	scopes    map[string]release.Object // by name; what one says follows from that
	shared    string                    // what every route relies on
	editions  []*config.Edition         // of the upstreams
	epoch     uint64                    // counts their changes
}

// NewCompiler returns a Compiler that has seen nothing.
func NewCompiler() *Compiler {
	return &Compiler{routing: routing.NewMemory(), routes: map[*config.Edition]*compiled{}, upstreams: map[*config.Edition]*compiled{}, scopes: map[string]release.Object{}}
}

// Compile is the function Compile, at the cost of what changed.
func (c *Compiler) Compile(gw *config.Gateway, scope Scope) (objects []release.Object, warnings []string) {
	if !c.knows(gw) {
		return Compile(gw, scope)
	}
	b := newBuilder(gw, scope, c)
	c.routing.Begin()
	err := b.edge(func(l *config.Listener, form *shard.Form) error {
		if form != nil {
			return b.encodedParts(c.routing, l, form)
		}
		body, refs, err := b.routing.Encoded(c.routing, l, b.httpsPort(), func(i int) any { return b.made[i] })
		b.objects = append(b.objects, release.Object{Audience: release.Edge, Type: release.TypeRoute, Name: l.Name, Body: body, Pos: l.Pos, Refs: refs})
		return err
	})
	c.routing.End()
	if err != nil {
		return Compile(gw, scope) // whose release says what is wrong with it
	}
	b.clusters()
	b.authorization()
	b.limits()
	c.forget(b)
	return b.objects, b.warnings
}

// knows reports whether it is said of everything in a gateway what it is the same
// as, and forgets what no longer counts.
func (c *Compiler) knows(gw *config.Gateway) bool {
	editions := make([]*config.Edition, len(gw.Upstreams))
	for i := range gw.Upstreams {
		editions[i] = gw.Upstreams[i].Edition
	}
	unknown := func(r *config.Route) bool { return r.Edition == nil }
	if slices.Contains(editions, nil) || slices.ContainsFunc(gw.Routes, unknown) {
		return false
	}
	if !slices.Equal(editions, c.editions) {
		c.editions = editions
		c.epoch++
	}
	if shared := sharedBy(gw); shared != c.shared {
		c.shared, c.routes = shared, map[*config.Edition]*compiled{}
	}
	return true
}

// sharedBy is equal for gateways of which every route takes the same.
func sharedBy(gw *config.Gateway) string {
	placeless := func(limits []config.Limit) []config.Limit {
		out := slices.Clone(limits)
		for i := range out {
			out[i].Pos = config.Pos{}
		}
		return out
	}
	out := fmt.Sprintf("%q %#v", keyHeader(gw), placeless(gw.RateLimit))
	if gw.Identity.APIKeys != nil {
		out += " keys"
	}
	for i := range gw.Plans {
		out += fmt.Sprintf(" %q %#v", gw.Plans[i].Name, placeless(gw.Plans[i].RateLimit))
	}
	return out
}

// route is builder.route, remembered.
func (c *Compiler) route(b *builder, r *config.Route) *compiled {
	if c == nil {
		return b.route(r)
	}
	known := c.routes[r.Edition]
	if known != nil && known.epoch != c.epoch && !slices.Equal(known.relied, b.relies(r)) {
		known = nil
	}
	if known == nil {
		known = remembered(b.route(r))
		known.relied = b.relies(r)
		c.routes[r.Edition] = known
	}
	known.epoch = c.epoch
	return known
}

// upstream is builder.upstream, remembered.
func (c *Compiler) upstream(b *builder, u *config.Upstream) *compiled {
	if c == nil {
		return b.upstream(u)
	}
	known := c.upstreams[u.Edition]
	if known == nil {
		known = remembered(b.upstream(u))
		c.upstreams[u.Edition] = known
	}
	return known
}

func remembered(c *compiled) *compiled {
	for i := range c.objects {
		c.objects[i].Memo = &release.Memo{}
	}
	return c
}

// relies lists the upstreams on which it depends what a route becomes.
func (b *builder) relies(r *config.Route) []*config.Edition {
	var out []*config.Edition
	names := []string{r.Upstream}
	if r.Mirror != nil {
		names = append(names, r.Mirror.Upstream)
	}
	for i := 0; i < len(names); i++ {
		if u := b.upstreams[names[i]]; u != nil {
			out = append(out, u.Edition)
			for _, m := range u.Split {
				names = append(names, m.Upstream)
			}
		}
	}
	return out
}

// forget drops what was remembered of things that are gone, when that is most.
func (c *Compiler) forget(b *builder) {
	if len(c.routes) > 2*len(b.gw.Routes)+100 {
		kept := make(map[*config.Edition]*compiled, len(b.gw.Routes))
		for i, r := range b.gw.Routes {
			kept[r.Edition] = b.made[i]
		}
		c.routes = kept
	}
	if len(c.upstreams) > 2*len(b.gw.Upstreams)+100 {
		kept := make(map[*config.Edition]*compiled, len(b.gw.Upstreams))
		for i := range b.gw.Upstreams {
			kept[b.gw.Upstreams[i].Edition] = c.upstreams[b.gw.Upstreams[i].Edition]
		}
		c.upstreams = kept
	}
}
