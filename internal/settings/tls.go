package settings

import (
	"tollgate/internal/daemon"
	"tollgate/internal/peer"
)

// PlainAdmin refuses an admin address off loopback, where the registry's token
// would cross the network in plain text, unless that was asked for.
func (s Settings) PlainAdmin() error {
	if address := s.Admin(); !daemon.Loopback(address) && !s.On(Insecure) {
		return Usagef("--%s %s is off loopback and speaks plain HTTP: put a proxy with TLS in front of it, or accept plain text with --%s", AdminAddress, address, Insecure)
	}
	return nil
}

// EnvoyAdmin is where Envoy's own admin listens. One that another machine
// reaches is refused: it can stop the proxy and show its secrets.
func (s Settings) EnvoyAdmin(dataDir string) (peer.Address, error) {
	a, err := s.Place(EnvoyAdmin, dataDir)
	if err == nil && !a.Local() {
		err = Usagef("--%s %s: Envoy's admin can stop the proxy and show its secrets, so it stays on loopback or a socket", EnvoyAdmin, a)
	}
	return a, err
}
