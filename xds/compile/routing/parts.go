package routing

import (
	"maps"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"tollgate/api/contract"
	"tollgate/xds/compile/encoded"
	"tollgate/xds/compile/shard"
	"tollgate/xds/config"
	"tollgate/xds/release"
)

// EncodedPart is a Part, encoded and checked.
type EncodedPart struct {
	Name string
	Body []byte
	Refs []release.Ref
	Memo *release.Memo // of what became of it
}

// lastParts are those of the compilation before.
type lastParts struct {
	around *routev3.RouteConfiguration
	pieces [][]*encoded.Piece
	parts  []EncodedPart
}

// EncodedParts are Table.Parts of a listener that does not only redirect; the
// rest is as Encoded has it.
func (b *Builder) EncodedParts(m *Memory, l *config.Listener, f shard.Form, prefix string, same func(i int) any) ([]EncodedPart, error) {
	var fault error
	byHost := b.byHost(l, func(i int) []*entry {
		entries, err := b.remembered(m, i, memoryKey{same(i), l.TLS != nil})
		if err != nil {
			fault = err
		}
		return entries
	})
	if fault != nil {
		return nil, fault
	}
	known, used := m.parted[prefix], map[string][]*encoded.Host{}
	hosts := map[string]*group{}
	var order []string
	for _, host := range slices.Sorted(maps.Keys(byHost)) {
		key := m.key(byHost, host)
		if hosts[key] != nil {
			hosts[key].hosts = append(hosts[key].hosts, host)
			continue
		}
		if used[key] = known[key]; used[key] == nil {
			var err error
			if used[key], err = b.encodeColumns(reachable(byHost, host), f); err != nil {
				return nil, err
			}
		}
		hosts[key] = &group{hosts: []string{host}}
		order = append(order, key)
	}
	if m.parted == nil {
		m.parted = map[string]map[string][]*encoded.Host{}
	}
	m.parted[prefix] = used
	pieces := make([][]*encoded.Piece, f.Parts())
	for _, key := range order {
		rows := hosts[key].rows(f)
		for _, row := range slices.Sorted(maps.Keys(rows)) {
			for column, body := range used[key] {
				part := f.Part(row, column)
				pieces[part] = append(pieces[part], &encoded.Piece{Hosts: rows[row], Body: body})
			}
		}
	}
	return b.joined(m, l, prefix, pieces)
}

// joined are the parts of a listener out of their virtual hosts. One of which
// nothing changed is the one of before.
func (b *Builder) joined(m *Memory, l *config.Listener, prefix string, pieces [][]*encoded.Piece) ([]EncodedPart, error) {
	around := b.blank(l)
	around.RequestHeadersToRemove = []string{contract.HeaderScope}
	last := m.parts[prefix]
	if last == nil || !proto.Equal(last.around, around) {
		last = &lastParts{pieces: make([][]*encoded.Piece, len(pieces)), parts: make([]EncodedPart, len(pieces))}
	}
	next := &lastParts{around: proto.CloneOf(around), pieces: pieces, parts: make([]EncodedPart, len(pieces))}
	for i := range pieces {
		one := last.parts[i]
		if one.Memo != nil && slices.EqualFunc(pieces[i], last.pieces[i], (*encoded.Piece).Equal) {
			next.parts[i] = one
			continue
		}
		fresh := EncodedPart{Name: PartName(prefix, i), Memo: &release.Memo{}}
		around.Name = fresh.Name
		var err error
		if fresh.Body, err = encoded.Join(around, pieces[i]); err != nil {
			return nil, err
		}
		var named mentions
		for _, piece := range pieces[i] {
			named.add(piece.Body.Refs)
		}
		fresh.Refs = named.refs
		next.parts[i] = fresh
	}
	if m.parts == nil {
		m.parts = map[string]*lastParts{}
	}
	m.parts[prefix] = next
	return next.parts, nil
}
