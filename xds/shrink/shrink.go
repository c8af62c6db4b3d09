// Package shrink says which changes take away more than an operator is likely to
// mean: a file cut short, a folder that is not mounted, a network that hides half
// of the instances. Invariant: it is a pure function of what was and what is
// left; a change of a few things is never held, whatever share they are.
package shrink

import (
	"fmt"
	"slices"
	"strings"

	"tollgate/xds/config"
)

const (
	// Least is how many must go before a change is held.
	Least = 10
	// share is what may go of what there was, in percent.
	share = 30
	shown = 5
)

// Holds says whether a change takes too many away.
func Holds(before, gone int) bool { return gone >= Least && 100*gone > share*before }

// Gateway is an error that names what a new gateway file takes away too much of:
// routes, or endpoints that the file lists. nil: it takes away little, or has as
// many others in their place.
func Gateway(before, after *config.Gateway) error {
	for _, kind := range []struct {
		name         string
		before, left map[string]struct{}
	}{
		{"routes", routes(before), routes(after)},
		{"endpoints", endpoints(before), endpoints(after)},
	} {
		var gone []string
		for name := range kind.before {
			if _, left := kind.left[name]; !left {
				gone = append(gone, name)
			}
		}
		fewer := len(kind.before) - len(kind.left)
		if !Holds(len(kind.before), min(len(gone), fewer)) {
			continue
		}
		slices.Sort(gone)
		return fmt.Errorf("the files leave %d of %d %s (without %s, …), so they wait: `tollgate allow-shrink files` lets them, if that is meant",
			len(kind.left), len(kind.before), kind.name, strings.Join(gone[:shown], ", "))
	}
	return nil
}

func routes(g *config.Gateway) map[string]struct{} {
	names := make(map[string]struct{}, len(g.Routes))
	for i := range g.Routes {
		names[g.Routes[i].Name] = struct{}{}
	}
	return names
}

func endpoints(g *config.Gateway) map[string]struct{} {
	names := map[string]struct{}{}
	for i := range g.Upstreams {
		for _, e := range g.Upstreams[i].Endpoints {
			names[g.Upstreams[i].Name+" "+e.Address.String()] = struct{}{}
		}
	}
	return names
}
