// Package peer tells who is at the other end of a connection, and opens the
// connections over which our parts meet: Unix sockets on one machine, TCP
// between machines. Promise: an Identity comes from the transport alone (the
// kernel's word for a socket, a verified certificate for TLS), never from what
// the other end says; a process of a user that is not allowed is closed before
// a byte of it is read; a socket that somebody serves is never taken away; no
// gRPC connection outlives the certificate that opened it.
package peer

import (
	"context"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// NoUID is the UID of a peer whose user the transport does not tell.
const NoUID = -1

// Identity is who is at the other end, as far as the transport proves it. The
// zero Identity is nobody: no name, no role, not local.
type Identity struct {
	Name  string // of the certificate; "" where there is none
	Role  string // of the certificate: edge, extauthz, ratelimit, service, client; "" where there is none
	UID   int    // user of the process at the other end of a socket; NoUID where that is unknown
	Local bool   // it came over a Unix socket, and its user is allowed
	// NotBefore and NotAfter are those of the certificate; zero where there is none.
	NotBefore, NotAfter time.Time
}

// Info is what our transport credentials leave with a gRPC connection.
type Info struct {
	credentials.CommonAuthInfo
	Identity Identity
	kind     string
}

// AuthType names the transport: "socket", "plain" or "tls".
func (i Info) AuthType() string { return i.kind }

// FromContext returns who sent the RPC that a context belongs to. It is false
// where no credentials of this package stood at the door.
func FromContext(ctx context.Context) (Identity, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Identity{UID: NoUID}, false
	}
	info, ok := p.AuthInfo.(Info)
	if !ok {
		return Identity{UID: NoUID}, false
	}
	return info.Identity, true
}
