package envoy

import (
	"context"
	"net/netip"

	"tollgate/internal/daemon"
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

// SettleAddress makes port 0 a free port and proves that any other is not
// taken; where names the setting that it comes from.
func SettleAddress(ctx context.Context, address, where string) (string, error) {
	l, err := daemon.Listen(ctx, address, where)
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
