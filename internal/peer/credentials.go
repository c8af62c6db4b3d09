package peer

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// Credentials are those of a gRPC connection by the transport it came over: a
// socket is known by its user; what comes over TCP is left to tcp. A nil tcp
// refuses it. The same value serves both sides.
func Credentials(tcp credentials.TransportCredentials) credentials.TransportCredentials {
	return transport{tcp}
}

// Plain takes TCP without TLS: whoever is there is nobody. It is for
// --insecure.
func Plain() credentials.TransportCredentials { return plain{} }

// DialOptions let a gRPC client dial what Parse reads behind passthrough:///.
func (s Sockets) DialOptions(tcp credentials.TransportCredentials) []grpc.DialOption {
	return []grpc.DialOption{grpc.WithContextDialer(s.Dial), grpc.WithTransportCredentials(Credentials(tcp))}
}

// transport asks each connection what it is.
type transport struct {
	tcp credentials.TransportCredentials
}

func (t transport) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if known, ok := c.(*conn); ok {
		return known, known.info(), nil
	}
	if t.tcp == nil || c.RemoteAddr().Network() == "unix" {
		return nil, nil, fmt.Errorf("connection over %s refused: it is no socket of ours, and there is no TLS", c.RemoteAddr().Network())
	}
	return t.tcp.ServerHandshake(c)
}

func (t transport) ClientHandshake(ctx context.Context, authority string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if known, ok := c.(*conn); ok {
		return known, known.info(), nil
	}
	if t.tcp == nil {
		return nil, nil, errors.New("plain TCP refused: give certificates, or accept it with --insecure")
	}
	return t.tcp.ClientHandshake(ctx, authority, c)
}

func (t transport) Info() credentials.ProtocolInfo {
	if t.tcp == nil {
		return credentials.ProtocolInfo{SecurityProtocol: "socket"}
	}
	return t.tcp.Info()
}

func (t transport) Clone() credentials.TransportCredentials {
	if t.tcp == nil {
		return t
	}
	return transport{t.tcp.Clone()}
}

// OverrideServerName is part of the interface; names are the business of tcp.
func (t transport) OverrideServerName(string) error { return nil }

func (c *conn) info() Info {
	return Info{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, kind: "socket",
		Identity: Identity{UID: c.uid, Local: true},
	}
}

// plain is no protection at all.
type plain struct{}

func (plain) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c, plainInfo(), nil
}

func (plain) ClientHandshake(_ context.Context, _ string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c, plainInfo(), nil
}

func (plain) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "insecure"}
}
func (plain) Clone() credentials.TransportCredentials { return plain{} }
func (plain) OverrideServerName(string) error         { return nil }

func plainInfo() Info {
	return Info{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}, kind: "plain", Identity: Identity{UID: NoUID}}
}
