package routing

import (
	"encoding/binary"
	"maps"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"tollgate/xds/compile/guard"
	"tollgate/xds/config"
	"tollgate/xds/release"
)

// The fields of Envoy's messages that hold others of them.
const (
	hostsOfConfiguration protowire.Number = 2
	routesOfHost         protowire.Number = 3
)

// Memory is what one Builder leaves to the next: the encoded routes of what did
// not change, and the encoded virtual hosts of those. It is for one goroutine.
type Memory struct {
	serial uint64
	routes map[memoryKey][]*entry
	hosts  map[string]map[string]*encodedHost // by listener, by the routes of the host
	refs   map[string][]release.Ref           // by listener, of all its hosts

	nextRoutes map[memoryKey][]*entry
}

// memoryKey is what the Envoy routes of a route depend on.
type memoryKey struct {
	same   any // equal for what is compiled from the same
	secure bool
}

// kept is an encoded entry.
type kept struct {
	id   uint64 // of no other entry of the Memory
	body []byte // the route as a field of its virtual host
}

// encodedHost is a virtual host but for its name and its domains.
type encodedHost struct {
	routes, settings []byte
	refs             []release.Ref
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
		body, err := encoded(around)
		return body, nil, err
	}
	known, used, anew := m.hosts[l.Name], map[string]*encodedHost{}, false
	var fault error
	byHost, _ := b.byHost(l, func(i int) []*entry {
		entries, err := b.remembered(m, i, memoryKey{same(i), l.TLS != nil})
		if err != nil {
			fault = err
		}
		return entries
	})
	groups := map[string]*routev3.VirtualHost{}
	var order []string
	for _, host := range slices.Sorted(maps.Keys(byHost)) {
		entries := reachable(byHost, host)
		key := "of names " + idsOf(entries)
		if host == "*" { // it shares with nobody
			key = "*" + key
		}
		if vh := groups[key]; vh != nil {
			vh.Domains = append(vh.GetDomains(), host)
			continue
		}
		if used[key] = known[key]; used[key] == nil {
			one, err := b.encodeHost(entries)
			if err != nil {
				return nil, nil, err
			}
			used[key], anew = one, true
		}
		groups[key] = &routev3.VirtualHost{Name: host, Domains: []string{host}}
		order = append(order, key)
	}
	if fault != nil {
		return nil, nil, fault
	}
	body, err := join(around, order, groups, used)
	if err != nil {
		return nil, nil, err
	}
	if m.hosts == nil {
		m.hosts, m.refs = map[string]map[string]*encodedHost{}, map[string][]release.Ref{}
	}
	if anew || len(used) != len(known) {
		var named mentions
		for _, key := range order {
			named.add(used[key].refs)
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
	body, err := encoded(e.route)
	if err != nil {
		return err
	}
	m.serial++
	e.kept = &kept{id: m.serial, body: protowire.AppendBytes(protowire.AppendTag(nil, routesOfHost, protowire.BytesType), body)}
	e.route = nil
	return nil
}

func encoded(message interface {
	proto.Message
	ValidateAll() error
},
) ([]byte, error) {
	if err := message.ValidateAll(); err != nil {
		return nil, err
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(message)
}

// idsOf is equal for equal lists of routes at equal places.
func idsOf(entries []*entry) string {
	out := make([]byte, 0, 4*len(entries))
	for _, e := range entries {
		out = append(binary.AppendUvarint(out, e.kept.id), byte(min(e.rank.host, 255)))
	}
	return string(out)
}

func (b *Builder) encodeHost(entries []*entry) (*encodedHost, error) {
	out := &encodedHost{}
	var named mentions
	var looks guard.Host
	for _, e := range b.ordered(entries) {
		if e.kept == nil { // one that was added
			if err := (&Memory{}).keep(e); err != nil {
				return nil, err
			}
		}
		out.routes = append(out.routes, e.kept.body...)
		named.add(e.refs)
		looks.Look(&e.from.Match)
	}
	out.refs = named.refs
	var err error
	out.settings, err = proto.MarshalOptions{Deterministic: true}.Marshal(&routev3.VirtualHost{TypedPerFilterConfig: looks.PerHost()})
	return out, err
}

// join puts the virtual hosts where they stand in the configuration around them,
// whose fields before them are its name alone.
func join(around *routev3.RouteConfiguration, order []string, groups map[string]*routev3.VirtualHost, hosts map[string]*encodedHost) ([]byte, error) {
	first, err := proto.Marshal(&routev3.RouteConfiguration{Name: around.GetName()})
	if err != nil {
		return nil, err
	}
	if err := around.ValidateAll(); err != nil {
		return nil, err
	}
	around.Name = ""
	last, err := proto.MarshalOptions{Deterministic: true}.Marshal(around)
	if err != nil {
		return nil, err
	}
	heads, size := make([][]byte, len(order)), len(first)+len(last)
	for i, key := range order {
		if heads[i], err = encoded(groups[key]); err != nil {
			return nil, err
		}
		size += len(heads[i]) + len(hosts[key].routes) + len(hosts[key].settings) + 16
	}
	out := append(make([]byte, 0, size), first...)
	for i, key := range order {
		one := hosts[key]
		out = protowire.AppendTag(out, hostsOfConfiguration, protowire.BytesType)
		out = protowire.AppendVarint(out, uint64(len(heads[i])+len(one.routes)+len(one.settings)))
		out = append(append(append(out, heads[i]...), one.routes...), one.settings...)
	}
	return append(out, last...), nil
}
