package config

import (
	"fmt"
	"strconv"

	"tollgate/internal/strictyaml"
	"tollgate/xds/config/check"
	"tollgate/xds/config/syntax"
)

// limits gives the limits of one owner; those without a name are numbered from first.
func (b *builder) limits(owner, path string, written []syntax.Limit, first int) []Limit {
	var out []Limit
	for i := range written {
		s := &written[i]
		name := string(s.Name.V)
		if name == "" {
			name = strconv.Itoa(first + i)
		}
		check.Limit(b.fault, s, fmt.Sprintf("%s[%s]", path, name))
		l := Limit{
			Pos: Pos(s.Pos), ID: owner + "/" + name,
			Limit: uint64(s.Limit.V), Window: s.Per.V.Length, Unit: s.Per.V.Unit, By: strs(s.By),
			Burst: uint64(s.Burst.V), Message: s.Message.V, Shadow: s.Enforce.IsSet() && !s.Enforce.V,
		}
		if s.Algorithm.V == "gcra" {
			l.Algorithm = GCRA
		}
		switch s.OnError.V {
		case "open":
			l.OnError = OnErrorOpen
		case "closed":
			l.OnError = OnErrorClosed
		}
		out = append(out, l)
	}
	return out
}

// uniqueLimits refuses two limits that would share one counter.
func (b *builder) uniqueLimits(limits []Limit, path string) {
	seen := make(map[string]Pos, len(limits))
	for _, l := range limits {
		if first, twice := seen[l.ID]; twice {
			b.fault(strictyaml.Pos(l.Pos), path, "two limits are %s, and would share a counter: %s:%d:%d is the other; name one of them", l.ID, first.File, first.Line, first.Col)
			continue
		}
		seen[l.ID] = l.Pos
	}
}
