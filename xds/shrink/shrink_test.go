package shrink_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"tollgate/xds/config"
	"tollgate/xds/shrink"
)

func gateway(routes, endpoints int) *config.Gateway {
	g := &config.Gateway{}
	for i := range routes {
		g.Routes = append(g.Routes, &config.Route{Name: fmt.Sprintf("r%03d", i)})
	}
	u := config.Upstream{Name: "up"}
	for i := range endpoints {
		u.Endpoints = append(u.Endpoints, config.Endpoint{Address: netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(i+1))})
	}
	g.Upstreams = append(g.Upstreams, u)
	return g
}

// renamed has routes of other names.
func renamed(n int) *config.Gateway {
	g := &config.Gateway{}
	for i := range n {
		g.Routes = append(g.Routes, &config.Route{Name: fmt.Sprintf("new%d", i)})
	}
	return g
}

func TestGateway(t *testing.T) {
	for name, c := range map[string]struct {
		before, after *config.Gateway
		want          string // part of the error; "": it lands
	}{
		"nothing":                 {gateway(100, 100), gateway(100, 100), ""},
		"30 of 100 routes":        {gateway(100, 0), gateway(70, 0), ""},
		"31 of 100 routes":        {gateway(100, 0), gateway(69, 0), "leave 69 of 100 routes (without r069, r070, r071, r072, r073, …)"},
		"all of 9":                {gateway(9, 9), gateway(0, 0), ""},
		"all of 10":               {gateway(10, 0), gateway(0, 0), "leave 0 of 10 routes"},
		"31 of 100 endpoints":     {gateway(1, 100), gateway(1, 69), "leave 69 of 100 endpoints (without up 0.0.0.0:100, "},
		"routes grow, hosts fall": {gateway(10, 20), gateway(500, 10), "leave 10 of 20 endpoints"},
		"renamed":                 {gateway(100, 0), renamed(100), ""},
		"a third is renamed":      {gateway(100, 0), renamed(60), "leave 60 of 100 routes"},
		"from nothing":            {gateway(0, 0), gateway(100, 100), ""},
	} {
		err := shrink.Gateway(c.before, c.after)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}
