// Package inherit gives every route and upstream what it takes from its groups
// and from the defaults: the nearest level wins, blocks merge key by key, lists
// replace, none turns off. Invariant: what the operator wrote is not changed,
// so that faults can tell own words from inherited ones.
package inherit

import (
	"reflect"
	"strconv"

	"tollgate/internal/strictyaml"
	"tollgate/xds/config/syntax"
)

// Route is a route, or a group, with its whole name.
type Route struct {
	Name string // with its groups: "shop/orders"
	Path string // for faults: "routes[shop/orders]"
	Own  *syntax.Route
	Full *syntax.Route // with what it inherits
}

// IsGroup tells groups, which serve nothing themselves.
func (r *Route) IsGroup() bool { return r.Own.Routes != nil }

// Upstream is an upstream with its settings; a split inherits none.
type Upstream struct {
	Name     string
	Path     string
	Own      *syntax.Upstream
	Settings syntax.UpstreamSettings
}

// Defaults are what every route and upstream inherits.
type Defaults struct {
	written *syntax.Defaults // nil: nothing
	merger  merger
}

// From returns the defaults that a file wrote; nil for none.
func From(written *syntax.Defaults) *Defaults {
	return &Defaults{written: written, merger: merger{shapes: map[reflect.Type][]strictyaml.Field{}}}
}

// Routes lists groups and routes in the order of the files.
func (d *Defaults) Routes(files []*syntax.File) []Route {
	var out []Route
	for _, f := range files {
		for i := range f.Routes {
			out = d.Route(out, &f.Routes[i], i)
		}
	}
	return out
}

// Route appends a route, or a group and what is in it; it is the i-th of its file.
func (d *Defaults) Route(out []Route, own *syntax.Route, i int) []Route {
	full := *own
	if d.written != nil {
		full.Settings = merge(&d.merger, d.written.Settings, full.Settings)
	}
	return d.tree(out, own, &full, "", i)
}

func (d *Defaults) tree(out []Route, own, full *syntax.Route, group string, i int) []Route {
	name := group + string(own.Name.V)
	out = append(out, Route{Name: name, Path: Element("routes", name, i), Own: own, Full: full})
	for k := range own.Routes {
		outer := *full
		outer.Routes = nil
		inner := merge(&d.merger, outer, own.Routes[k])
		out = d.tree(out, &own.Routes[k], &inner, name+"/", k)
	}
	return out
}

// Upstreams lists the upstreams in the order of the files.
func (d *Defaults) Upstreams(files []*syntax.File) []Upstream {
	var out []Upstream
	for _, f := range files {
		for i := range f.Upstreams {
			out = append(out, d.Upstream(&f.Upstreams[i], i))
		}
	}
	return out
}

// Upstream is the i-th upstream of its file.
func (d *Defaults) Upstream(own *syntax.Upstream, i int) Upstream {
	u := Upstream{Name: string(own.Name.V), Path: Element("upstreams", string(own.Name.V), i), Own: own, Settings: own.UpstreamSettings}
	if own.Split == nil && d.written != nil && d.written.Upstream != nil {
		u.Settings = merge(&d.merger, *d.written.Upstream, u.Settings)
	}
	return u
}

// Element names an element in a path by its name or its number.
func Element(list, name string, i int) string {
	if name == "" {
		name = strconv.Itoa(i)
	}
	return list + "[" + name + "]"
}
