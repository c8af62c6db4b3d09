package routing

import (
	"encoding/binary"
	"maps"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"tollgate/xds/compile/encoded"
	"tollgate/xds/compile/guard"
	"tollgate/xds/compile/shard"
	"tollgate/xds/config"
	"tollgate/xds/release"
)

// Memory is what one Builder leaves to the next: the encoded routes of what did
// not change, and the encoded virtual hosts of those. It is for one goroutine.
type Memory struct {
	serial uint64
	routes map[memoryKey][]*entry
	hosts  map[string]map[string]*encoded.Host   // by listener, by the routes of the host
	refs   map[string][]release.Ref              // by listener, of all its hosts
	parted map[string]map[string][]*encoded.Host // by listener and form, by the routes of the host, by column
	parts  map[string]*lastParts                 // by listener and form

	nextRoutes map[memoryKey][]*entry
	hosted     uint64 // counts the hosts
	buffer     []byte // of key
}

// memoryKey is what the Envoy routes of a route depend on.
type memoryKey struct {
	same   any // equal for what is compiled from the same
	secure bool
}

// kept is an encoded entry.
type kept struct {
	id     uint64 // of no other entry of the Memory
	hosted uint64 // the last host that was seen to reach it
	body   []byte // the route as a field of its virtual host
}

// NewMemory returns a Memory of nothing.
func NewMemory() *Memory { return &Memory{} }

// Begin starts a compilation, Encoded follows for each listener, and End forgets
// what none of them used.
func (m *Memory) Begin() { m.nextRoutes = make(map[memoryKey][]*entry, len(m.routes)) }

// End ends a compilation.
func (m *Memory) End() { m.routes, m.nextRoutes = m.nextRoutes, nil }

// Encoded is the route configuration of a listener as Table.Whole makes it,
// encoded and checked. same(i) is equal for the i-th route of two compilations if
// whatever it is compiled from is equal. An error is about a constraint that an
// object breaks.
func (b *Builder) Encoded(m *Memory, l *config.Listener, httpsPort uint16, same func(i int) any) ([]byte, []release.Ref, error) {
	around := b.blank(l)
	around.Name = l.Name
	if l.RedirectHTTPS {
		around.VirtualHosts = []*routev3.VirtualHost{b.toHTTPS(httpsPort)}
		body, err := encoded.Message(around)
		return body, nil, err
	}
	known, used, anew := m.hosts[l.Name], map[string]*encoded.Host{}, false
	var fault error
	byHost := b.byHost(l, func(i int) []*entry {
		entries, err := b.remembered(m, i, memoryKey{same(i), l.TLS != nil})
		if err != nil {
			fault = err
		}
		return entries
	})
	groups := map[string]*encoded.Piece{}
	var pieces []*encoded.Piece
	for _, host := range slices.Sorted(maps.Keys(byHost)) {
		key := m.key(byHost, host)
		if one := groups[key]; one != nil {
			one.Hosts = append(one.Hosts, host)
			continue
		}
		if used[key] = known[key]; used[key] == nil {
			one, err := b.encodeHost(reachable(byHost, host))
			if err != nil {
				return nil, nil, err
			}
			used[key], anew = one, true
		}
		groups[key] = &encoded.Piece{Hosts: []string{host}, Body: used[key]}
		pieces = append(pieces, groups[key])
	}
	if fault != nil {
		return nil, nil, fault
	}
	body, err := encoded.Join(around, pieces)
	if err != nil {
		return nil, nil, err
	}
	if m.hosts == nil {
		m.hosts, m.refs = map[string]map[string]*encoded.Host{}, map[string][]release.Ref{}
	}
	if anew || len(used) != len(known) {
		var named mentions
		for _, one := range pieces {
			named.add(one.Body.Refs)
		}
		m.refs[l.Name] = named.refs
	}
	m.hosts[l.Name] = used
	return body, m.refs[l.Name], nil
}

// remembered are the entries of a route, encoded.
func (b *Builder) remembered(m *Memory, i int, key memoryKey) ([]*entry, error) {
	if found, ok := m.nextRoutes[key]; ok {
		return found, nil
	}
	entries, ok := m.routes[key]
	if !ok {
		entries = b.entries(i, key.secure)
		for _, e := range entries {
			if err := m.keep(e); err != nil {
				return nil, err
			}
		}
	}
	m.nextRoutes[key] = entries
	return entries, nil
}

// keep encodes an entry and lets its message go.
func (m *Memory) keep(e *entry) error {
	body, err := encoded.Message(e.route)
	if err != nil {
		return err
	}
	m.serial++
	e.kept = &kept{id: m.serial, body: encoded.Route(body)}
	e.route = nil
	return nil
}

// key is equal for hosts that share a virtual host: those that reach the same
// routes at the same places. "*" shares with nobody.
func (m *Memory) key(byHost map[string][]*entry, host string) string {
	m.hosted++
	out := append(m.buffer[:0], '.')
	if host == "*" {
		out[0] = '*'
	}
	place := -1
	for _, pattern := range patterns(host) {
		if len(byHost[pattern]) > 0 {
			place++
		}
		for _, e := range byHost[pattern] {
			if e.kept.hosted == m.hosted {
				continue // as in reachable
			}
			e.kept.hosted = m.hosted
			out = append(binary.AppendUvarint(out, e.kept.id), byte(min(place, 255)))
		}
	}
	m.buffer = out
	return string(out)
}

func (b *Builder) encodeHost(entries []*entry) (*encoded.Host, error) {
	out, err := b.encodeColumns(entries, shard.Form{})
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// encodeColumns encodes a virtual host once for each column of a form.
func (b *Builder) encodeColumns(entries []*entry, f shard.Form) ([]*encoded.Host, error) {
	g := &group{entries: b.ordered(entries)}
	var looks guard.Host
	for _, e := range g.entries {
		if e.kept == nil { // one that was added
			if err := (&Memory{}).keep(e); err != nil {
				return nil, err
			}
		}
		looks.Look(&e.from.Match)
	}
	settings, err := proto.MarshalOptions{Deterministic: true}.Marshal(&routev3.VirtualHost{TypedPerFilterConfig: looks.PerHost()})
	if err != nil {
		return nil, err
	}
	out := make([]*encoded.Host, f.Columns())
	for column, entries := range g.columns(f) {
		one, named := &encoded.Host{Settings: settings}, mentions{}
		for _, e := range entries {
			one.Routes = append(one.Routes, e.kept.body...)
			named.add(e.refs)
		}
		one.Refs = named.refs
		out[column] = one
	}
	return out, nil
}
