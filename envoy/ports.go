package envoy

import (
	"context"
	"errors"
	"net/netip"

	"tollgate/internal/daemon"
	"tollgate/internal/peer"
)

// TryListeners binds every edge address once without SO_REUSEPORT, because
// Envoy would silently share a taken port with another process.
func TryListeners(ctx context.Context, listeners map[string]netip.AddrPort) error {
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

// settleAdmin makes port 0 of the admin a free port and proves that any other
// is not taken; a socket is claimed for the life of the supervisor. A proxy that
// was left serves it, and rightly so.
func settleAdmin(ctx context.Context, a peer.Address, left bool) (peer.Address, *peer.Claim, error) {
	const where = "--envoy-admin-address"
	switch {
	case left && a.Socket():
		claim, err := peer.Lock(a, where)
		return a, claim, err
	case left && a.Port != 0:
		return a, nil, nil
	case a.Socket():
		claim, err := peer.Take(ctx, a, where)
		return a, claim, err
	}
	l, err := daemon.Listen(ctx, a.String(), where)
	if err != nil {
		return peer.Address{}, nil, err
	}
	settled, err := peer.Parse(l.Addr().String())
	return settled, nil, errors.Join(err, l.Close())
}
