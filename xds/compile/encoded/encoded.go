// Package encoded puts a route configuration together out of parts of it that are
// encoded already. Invariant: the bytes are those of the whole, encoded at once.
package encoded

import (
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"tollgate/xds/release"
)

// The fields of Envoy's messages that hold others of them.
const (
	hostsOfConfiguration protowire.Number = 2
	routesOfHost         protowire.Number = 3
)

// Host is a virtual host but for its name and its domains.
type Host struct {
	Routes   []byte // each as Route returns it
	Settings []byte // all other fields
	Refs     []release.Ref
}

// Piece is a virtual host, named as the first of its hosts.
type Piece struct {
	Hosts []string
	Body  *Host
}

// Equal reports whether two pieces are the same.
func (p *Piece) Equal(other *Piece) bool {
	return p.Body == other.Body && slices.Equal(p.Hosts, other.Hosts)
}

// Message checks and encodes a message. The error is about a constraint that it
// breaks.
func Message(m interface {
	proto.Message
	ValidateAll() error
},
) ([]byte, error) {
	if err := m.ValidateAll(); err != nil {
		return nil, err
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// Route is an encoded route as a field of its virtual host.
func Route(body []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, routesOfHost, protowire.BytesType), body)
}

// Join puts virtual hosts where they stand in the configuration around them,
// whose fields before them are its name alone.
func Join(around *routev3.RouteConfiguration, pieces []*Piece) ([]byte, error) {
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
	heads, size := make([][]byte, len(pieces)), len(first)+len(last)
	for i, one := range pieces {
		if heads[i], err = Message(&routev3.VirtualHost{Name: one.Hosts[0], Domains: one.Hosts}); err != nil {
			return nil, err
		}
		size += len(heads[i]) + len(one.Body.Routes) + len(one.Body.Settings) + 16
	}
	out := append(make([]byte, 0, size), first...)
	for i, one := range pieces {
		out = protowire.AppendTag(out, hostsOfConfiguration, protowire.BytesType)
		out = protowire.AppendVarint(out, uint64(len(heads[i])+len(one.Body.Routes)+len(one.Body.Settings)))
		out = append(append(append(out, heads[i]...), one.Body.Routes...), one.Body.Settings...)
	}
	return append(out, last...), nil
}
