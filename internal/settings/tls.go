package settings

import (
	"strings"

	"tollgate/internal/daemon"
)

// PlainAdmin refuses an admin address off loopback, where the registry's token
// would cross the network in plain text, unless that was asked for.
func (s Settings) PlainAdmin() error {
	if address := s.Address(AdminAddress); !daemon.Loopback(address) && !s.On(Insecure) {
		return Usagef("--%s %s is off loopback and speaks plain HTTP: put a proxy with TLS in front of it, or accept plain text with --%s", AdminAddress, address, Insecure)
	}
	return nil
}

// PrivateEnvoyAdmin refuses an address of Envoy's own admin that another
// machine reaches: it can stop the proxy and show its secrets.
func (s Settings) PrivateEnvoyAdmin() error {
	if address := s.Address(EnvoyAdmin); !strings.HasPrefix(address, "unix:") && !daemon.Loopback(address) {
		return Usagef("--%s %s: Envoy's admin can stop the proxy and show its secrets, so it stays on loopback or a socket", EnvoyAdmin, address)
	}
	return nil
}
