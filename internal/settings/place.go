package settings

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"

	"tollgate/api/contract"
	"tollgate/internal/peer"
)

// socketOf names the socket of a flag's address, in the folder run of the
// folder of state.
func socketOf(flag string) string {
	switch flag {
	case XDSAddress, XDSServers:
		return "xds.sock"
	case AuthzAddress, AuthzServers:
		return "extauthz.sock"
	case LimitAddress, LimitServers:
		return "ratelimit.sock"
	default:
		return "envoy-admin.sock"
	}
}

// Place is where a flag says to listen: what is written, else a socket in the
// folder of state. With --free-ports a written port gives way to a free one of
// loopback.
func (s Settings) Place(flag, dataDir string) (peer.Address, error) {
	text := s.Text(flag)
	if text == "" {
		text = contract.SocketPrefix + filepath.Join(dataDir, "run", socketOf(flag))
	}
	a, err := peer.Parse(text)
	if err != nil {
		return peer.Address{}, UsageError{fmt.Errorf("--%s: %w", flag, err)}
	}
	if s.On(FreePorts) && !a.Socket() {
		a = peer.Address{Host: "127.0.0.1"}
	}
	return a, nil
}

// Servers are those that a flag names, else the one on the socket in the folder
// of state. TLS is for all of them or for none, so sockets and ports do not mix.
func (s Settings) Servers(flag, dataDir string) ([]string, error) {
	list := s.List(flag)
	if len(list) == 0 {
		list = []string{contract.SocketPrefix + filepath.Join(dataDir, "run", socketOf(flag))}
	}
	parsed, err := peer.ParseAll("--"+flag, list)
	if err != nil {
		return nil, UsageError{err}
	}
	out := make([]string, 0, len(parsed))
	for _, a := range parsed {
		if a.Socket() != parsed[0].Socket() {
			return nil, Usagef("--%s: %s is a socket and the other a port: name only sockets, or only ports", flag, out[0])
		}
		out = append(out, a.String())
	}
	return out, nil
}

// Sockets are how this process opens and meets sockets.
func (s Settings) Sockets(log *slog.Logger) peer.Sockets {
	sockets := peer.Sockets{Log: log}
	for _, text := range s.List(AllowUID) {
		if uid, err := strconv.Atoi(text); err == nil {
			sockets.AllowUID = append(sockets.AllowUID, uid)
		}
	}
	return sockets
}

// users are the faults of --allow-uid.
func (s Settings) users() []error {
	var faults []error
	for _, text := range s.List(AllowUID) {
		if uid, err := strconv.ParseUint(text, 10, 32); err != nil {
			faults = append(faults, fmt.Errorf("--%s %q: write the number of a user, as `id -u` prints it", AllowUID, text))
		} else if uid == 65534 {
			// The kernel shows users of other namespaces, whoever they are, as this one.
			faults = append(faults, fmt.Errorf("--%s %d: that is nobody in particular: every user of another namespace has this number here", AllowUID, uid))
		}
	}
	return faults
}
