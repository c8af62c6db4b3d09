package language

import (
	"strconv"

	"tollgate/xds/config"
	"tollgate/xds/config/syntax"
)

// planLimits gives the limits of a plan: each tenant has its own counters, unless
// `by` says otherwise.
func planLimits(p *syntax.Plan) []config.Limit {
	out := limits("plan/"+string(p.Name.V), p.RateLimit.Items, 0)
	for i := range out {
		if p.RateLimit.Items[i].By == nil {
			out[i].By = []string{"tenant"}
		}
	}
	return out
}

// limits gives the limits of one owner; those without a name are numbered from first.
func limits(owner string, written []syntax.Limit, first int) []config.Limit {
	var out []config.Limit
	for i := range written {
		s := &written[i]
		name := string(s.Name.V)
		if name == "" {
			name = strconv.Itoa(first + i)
		}
		l := config.Limit{
			Pos: config.Pos(s.Pos), ID: owner + "/" + name,
			Limit: uint64(s.Limit.V), Window: s.Per.V.Length, Unit: s.Per.V.Unit, By: strs(s.By),
			Burst: uint64(s.Burst.V), Message: s.Message.V, Shadow: s.Enforce.IsSet() && !s.Enforce.V,
		}
		if s.Algorithm.V == "gcra" {
			l.Algorithm = config.GCRA
		}
		switch s.OnError.V {
		case "open":
			l.OnError = config.OnErrorOpen
		case "closed":
			l.OnError = config.OnErrorClosed
		}
		out = append(out, l)
	}
	return out
}
