package main

import (
	"context"
	"net"
	"net/netip"

	"tollgate/internal/daemon"
	"tollgate/xds/config"
)

// ports chooses the addresses that the gateway file leaves open, once each.
type ports struct {
	free   bool // --free-ports: every listener
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
		host = netip.MustParseAddr("127.0.0.1")
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

// tryListeners binds every edge address once without SO_REUSEPORT, because
// Envoy would silently share a taken port with another process.
func tryListeners(ctx context.Context, listeners map[string]netip.AddrPort) error {
	for name, address := range listeners {
		l, err := daemon.Listen(ctx, address.String(), "listeners["+name+"].address")
		if err != nil {
			return err
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}

// settle makes port 0 a free port and proves that any other is not taken.
func settle(ctx context.Context, address, where string) (string, error) {
	l, err := daemon.Listen(ctx, address, where)
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
