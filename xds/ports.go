package xds

import (
	"net"
	"net/netip"

	"tollgate/xds/config"
)

// ports chooses the addresses that the gateway file leaves open, once each.
type ports struct {
	free   bool // every listener
	chosen map[string]netip.AddrPort
}

func newPorts(free bool) *ports { return &ports{free: free, chosen: map[string]netip.AddrPort{}} }

func (p *ports) of(l config.Listener) (netip.AddrPort, error) {
	if !p.free && l.Address.Port() != 0 {
		return l.Address, nil
	}
	if known, ok := p.chosen[l.Name]; ok {
		return known, nil
	}
	host := l.Address.Addr()
	if p.free {
		host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	address, err := freePort(host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	p.chosen[l.Name] = address
	return address, nil
}

func freePort(host netip.Addr) (netip.AddrPort, error) {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(host, 0)))
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer func() { _ = l.Close() }()
	return netip.ParseAddrPort(l.Addr().String())
}
