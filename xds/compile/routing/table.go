package routing

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"tollgate/api/contract"
	"tollgate/xds/compile/field"
	"tollgate/xds/compile/shard"
	"tollgate/xds/config"
	"tollgate/xds/release"
)

// Table is all routes of a listener, in the order in which they are tried.
type Table struct {
	listener *config.Listener
	groups   []*group
	hosts    []*routev3.VirtualHost // instead of groups: a listener that only redirects
	blank    *routev3.RouteConfiguration
}

// Table makes the routes of a listener. The port is where a listener that only
// redirects sends its clients.
func (b *Builder) Table(l *config.Listener, httpsPort uint16) *Table {
	t := &Table{listener: l, blank: b.blank(l)}
	if l.RedirectHTTPS {
		t.hosts = []*routev3.VirtualHost{b.toHTTPS(httpsPort)}
		return t
	}
	t.groups = b.groups(l)
	return t
}

// blank is what stands around the virtual hosts of a listener.
func (b *Builder) blank(l *config.Listener) *routev3.RouteConfiguration {
	out := &routev3.RouteConfiguration{IgnorePortInHostMatching: true, TypedPerFilterConfig: b.idle}
	if !l.RedirectHTTPS && l.TLS != nil && l.TLS.HSTS > 0 {
		out.ResponseHeadersToAdd = []*corev3.HeaderValueOption{
			field.SetHeader("strict-transport-security", fmt.Sprintf("max-age=%d", int64(l.TLS.HSTS/time.Second))),
		}
	}
	return out
}

// Part is one route configuration, and what its routes name.
type Part struct {
	Configuration *routev3.RouteConfiguration
	Refs          []release.Ref
}

// Whole is all of it as one part, under the name of the listener.
func (t *Table) Whole() Part {
	out := t.part(t.listener.Name)
	out.Configuration.VirtualHosts = t.hosts
	var named mentions
	for _, g := range t.groups {
		out.Configuration.VirtualHosts = append(out.Configuration.VirtualHosts, g.virtualHost(g.hosts, g.entries))
		named.entries(g.entries)
	}
	out.Refs = named.refs
	return out
}

func (t *Table) part(name string) Part {
	return Part{Configuration: &routev3.RouteConfiguration{
		Name: name, IgnorePortInHostMatching: t.blank.GetIgnorePortInHostMatching(),
		TypedPerFilterConfig: t.blank.GetTypedPerFilterConfig(), ResponseHeadersToAdd: t.blank.GetResponseHeadersToAdd(),
	}}
}

// Weights is what package shard chooses a form by, and how many routes of the
// file a listener has.
func (b *Builder) Weights(l *config.Listener) (out []shard.Host, routes int) {
	own := map[string][]shard.Path{"*": nil}
	for _, r := range b.gw.Routes {
		if len(r.Listeners) > 0 && !slices.Contains(r.Listeners, l.Name) {
			continue
		}
		routes++
		path := shard.PathOf(&r.Match)
		for _, host := range hostsOf(r) {
			own[host] = append(own[host], path)
		}
	}
	for _, host := range slices.Sorted(maps.Keys(own)) {
		h := shard.Host{Name: host, Pattern: strings.HasPrefix(host, "*")}
		for _, pattern := range patterns(host) {
			h.Routes = append(h.Routes, own[pattern]...)
		}
		out = append(out, h)
	}
	return out, routes
}

// PartName is the name of a part by its number.
func PartName(prefix string, part int) string { return prefix + "/" + strconv.Itoa(part) }

// Parts are as many as the form has, in the order of their numbers. A request
// finds in its own part what it would find in the whole: each host of it with
// all patterns beside it, and of their routes, in the same order, all that take
// a path of the part.
func (t *Table) Parts(f shard.Form, prefix string) []Part {
	out, named, remove := make([]Part, f.Parts()), make([]mentions, f.Parts()), []string{contract.HeaderScope}
	for i := range out {
		out[i] = t.part(PartName(prefix, i))
		out[i].Configuration.RequestHeadersToRemove = remove
	}
	for _, g := range t.groups {
		columns := g.columns(f)
		rows := g.rows(f)
		for _, row := range slices.Sorted(maps.Keys(rows)) {
			for column, entries := range columns {
				part := f.Part(row, column)
				c := out[part].Configuration
				c.VirtualHosts = append(c.GetVirtualHosts(), g.virtualHost(rows[row], entries))
				named[part].entries(entries)
			}
		}
	}
	for i := range out {
		out[i].Refs = named[i].refs
	}
	return out
}

// rows are the hosts of a group by row, patterns in every one.
func (g *group) rows(f shard.Form) map[int][]string {
	out := map[int][]string{}
	for _, host := range g.hosts {
		if !strings.HasPrefix(host, "*") {
			out[f.Row(host)] = append(out[f.Row(host)], host)
			continue
		}
		for row := range f.Rows() {
			out[row] = append(out[row], host)
		}
	}
	return out
}

// columns are the routes of a group by column.
func (g *group) columns(f shard.Form) [][]*entry {
	out := make([][]*entry, f.Columns())
	for _, e := range g.entries {
		if column, every := shard.PathOf(&e.from.Match).Column(f); !every {
			out[column] = append(out[column], e)
			continue
		}
		for column := range out {
			out[column] = append(out[column], e)
		}
	}
	return out
}
