package language

import (
	"strings"

	"tollgate/internal/strictyaml"
	"tollgate/xds/config"
	"tollgate/xds/config/inherit"
)

// doubts are the places of a file that did not decode: what was meant there
// nobody knows, so what follows from it is no fault of its own.
type doubts struct {
	words map[config.Pos]bool    // by position: others may inherit one
	keys  map[string]bool        // by the path of a block: of its keys
	under map[string]bool        // paths that have a fault, or one below them
	match map[*config.Route]bool // which requests are meant
	auth  map[*config.Route]bool // which callers
}

func (d *doubts) note(f strictyaml.Fault) {
	if d.words == nil {
		*d = doubts{
			words: map[config.Pos]bool{}, keys: map[string]bool{}, under: map[string]bool{},
			match: map[*config.Route]bool{}, auth: map[*config.Route]bool{},
		}
	}
	if f.Word {
		d.words[config.Pos(f.Pos)] = true
	} else {
		d.keys[f.Path] = true
	}
	d.under[f.Path] = true
	for i, r := range f.Path {
		if r == '.' {
			d.under[f.Path[:i]] = true
		}
	}
}

// follows reports whether a fault is there because of another. Objects may well
// have more than one; in a block that has one, what it lacks is unsure.
func (d *doubts) follows(pos strictyaml.Pos, path string) bool {
	return d.words[config.Pos(pos)] || d.keys[path] && !strings.HasSuffix(path, "]")
}

// route notes of which requests and which callers a route is unsure.
func (d *doubts) route(r *inherit.Route, made *config.Route) {
	if d.words == nil {
		return
	}
	d.match[made] = d.keys[r.Path] || d.wrote(r, "match") || d.wrote(r, "listeners") || d.wrote(r, "priority")
	d.auth[made] = d.keys[r.Path] || d.wrote(r, "auth")
}

// wrote reports whether a key of a route, its groups or the defaults did not decode.
func (d *doubts) wrote(r *inherit.Route, key string) bool {
	for path := r.Path; ; {
		if d.under[path+"."+key] {
			return true
		}
		i := strings.LastIndexByte(path, '/')
		if i < 0 {
			return d.keys["defaults"] || d.under["defaults."+key]
		}
		path = path[:i] + "]"
	}
}
