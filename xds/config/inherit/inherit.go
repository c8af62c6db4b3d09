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

// Routes lists groups and routes in the order of the files.
func Routes(files []*syntax.File, defaults *syntax.Defaults) []Route {
	w := &walk{merger: merger{shapes: map[reflect.Type][]strictyaml.Field{}}}
	for _, f := range files {
		for i := range f.Routes {
			full := f.Routes[i]
			if defaults != nil {
				full.Settings = merge(&w.merger, defaults.Settings, full.Settings)
			}
			w.tree(&f.Routes[i], &full, "", i)
		}
	}
	return w.routes
}

type walk struct {
	merger merger
	routes []Route
}

func (w *walk) tree(own, full *syntax.Route, group string, i int) {
	name := group + string(own.Name.V)
	w.routes = append(w.routes, Route{Name: name, Path: element("routes", name, i), Own: own, Full: full})
	for k := range own.Routes {
		outer := *full
		outer.Routes = nil
		inner := merge(&w.merger, outer, own.Routes[k])
		w.tree(&own.Routes[k], &inner, name+"/", k)
	}
}

// Upstreams lists the upstreams in the order of the files.
func Upstreams(files []*syntax.File, defaults *syntax.Defaults) []Upstream {
	m := &merger{shapes: map[reflect.Type][]strictyaml.Field{}}
	var out []Upstream
	for _, f := range files {
		for i := range f.Upstreams {
			own := &f.Upstreams[i]
			u := Upstream{Name: string(own.Name.V), Path: element("upstreams", string(own.Name.V), i), Own: own, Settings: own.UpstreamSettings}
			if own.Split == nil && defaults != nil && defaults.Upstream != nil {
				u.Settings = merge(m, *defaults.Upstream, u.Settings)
			}
			out = append(out, u)
		}
	}
	return out
}

// element names an element in a path by its name or its number.
func element(list, name string, i int) string {
	if name == "" {
		name = strconv.Itoa(i)
	}
	return list + "[" + name + "]"
}
