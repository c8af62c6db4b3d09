package peer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/credentials"
)

// handshakeWithin is what a connection gets to say who it is.
const handshakeWithin = 10 * time.Second

// ID is the name that a certificate carries:
// spiffe://<domain>/<role>/<name>.
func ID(domain spiffeid.TrustDomain, role, name string) (spiffeid.ID, error) {
	return spiffeid.FromSegments(domain, role, name)
}

// IdentityOf is who a certificate speaks for. It verifies nothing.
func IdentityOf(certificate *x509.Certificate) (Identity, error) {
	id, err := x509svid.IDFromCert(certificate)
	if err != nil {
		return Identity{UID: NoUID}, err
	}
	role, name, ok := strings.Cut(strings.TrimPrefix(id.Path(), "/"), "/")
	if !ok || role == "" || name == "" || strings.Contains(name, "/") {
		return Identity{UID: NoUID}, fmt.Errorf("certificate of %s: a certificate of ours names spiffe://DOMAIN/ROLE/NAME", id)
	}
	return Identity{Name: name, Role: role, UID: NoUID, NotBefore: certificate.NotBefore, NotAfter: certificate.NotAfter}, nil
}

// Source gives the certificate that we show and the roots that we believe. It is
// asked at every handshake, so what is renewed counts from the next on.
type Source interface {
	x509svid.Source
	x509bundle.Source
}

// Mutual is TLS 1.3 on which both ends are known by their certificates. No
// session is resumed: every connection is judged by the roots of its moment. A
// server ends it with the certificate that it was opened with.
type Mutual struct {
	Source Source
	Roles  []string // those that the other end may have
	// HTTP takes connections whose client speaks HTTP/1.1 (ALPN) instead of gRPC,
	// also without a certificate, which is for it to judge. nil: there are none.
	HTTP func(*tls.Conn)
	// Refuse says why a server does not want somebody any more whose certificate is
	// good: an open gRPC connection of his is ended. It is asked every second, in
	// memory; who begins a call is for its handler to judge, who can say why. nil: it
	// wants everybody.
	Refuse func(Identity) error
	Log    *slog.Logger // of a server: told of those who were refused, and of those that were ended
}

// Client is what a client that speaks one of these protocols needs.
func (m Mutual) Client(protocols ...string) *tls.Config {
	config := tlsconfig.MTLSClientConfig(m.Source, m.Source, m.authorize)
	config.MinVersion, config.NextProtos = tls.VersionTLS13, protocols
	return config
}

// Credentials serve both sides of gRPC.
func (m Mutual) Credentials() credentials.TransportCredentials {
	return &mutual{Mutual: m, client: credentials.NewTLS(m.Client("h2"))}
}

func (m Mutual) authorize(id spiffeid.ID, chains [][]*x509.Certificate) error {
	identity, err := IdentityOf(chains[0][0])
	if err != nil {
		return err
	}
	return m.admits(id.String(), identity)
}

func (m Mutual) admits(id string, who Identity) error {
	if !slices.Contains(m.Roles, who.Role) {
		return fmt.Errorf("certificate of %s: its role must be %s here", id, strings.Join(m.Roles, " or "))
	}
	return nil
}

func (m Mutual) server() *tls.Config {
	config := tlsconfig.MTLSServerConfig(m.Source, m.Source, tlsconfig.AuthorizeAny())
	config.MinVersion, config.NextProtos, config.SessionTicketsDisabled = tls.VersionTLS13, []string{"h2"}, true
	if m.HTTP == nil {
		return config
	}
	config.NextProtos, config.ClientAuth = append(config.NextProtos, "http/1.1"), tls.RequestClientCert
	verify := config.VerifyPeerCertificate
	config.VerifyPeerCertificate = func(raw [][]byte, chains [][]*x509.Certificate) error {
		if len(raw) == 0 {
			return nil
		}
		return verify(raw, chains)
	}
	return config
}

type mutual struct {
	Mutual
	client  credentials.TransportCredentials
	refused refusals
}

func (m *mutual) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := m.accept(raw)
	if err != nil && !errors.Is(err, credentials.ErrConnDispatched) {
		if say, since := m.refused.add(time.Now()); say && m.Log != nil {
			m.Log.Warn("connection refused: it did not prove who it is", "address", raw.RemoteAddr().String(), "refused", since, "err", err)
		}
	}
	return conn, info, err
}

func (m *mutual) accept(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	ctx, cancel := context.WithTimeout(context.Background(), handshakeWithin)
	defer cancel()
	if err := raw.SetDeadline(time.Now().Add(handshakeWithin)); err != nil {
		return nil, nil, errors.Join(err, raw.Close())
	}
	conn := tls.Server(raw, m.server())
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, nil, errors.Join(err, raw.Close())
	}
	state := conn.ConnectionState()
	if m.HTTP != nil && state.NegotiatedProtocol == "http/1.1" {
		if err := raw.SetDeadline(time.Time{}); err != nil {
			return nil, nil, errors.Join(err, raw.Close())
		}
		m.HTTP(conn)
		return nil, nil, credentials.ErrConnDispatched
	}
	identity, err := m.identify(state)
	if err != nil {
		return nil, nil, errors.Join(err, raw.Close())
	}
	return m.bind(conn, identity), Info{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, kind: "tls", Identity: identity,
	}, nil
}

func (m *mutual) identify(state tls.ConnectionState) (Identity, error) {
	if state.NegotiatedProtocol != "h2" {
		return Identity{UID: NoUID}, errors.New("the client does not offer HTTP/2 (ALPN h2)")
	}
	if len(state.PeerCertificates) == 0 {
		return Identity{UID: NoUID}, errors.New("the client shows no certificate")
	}
	identity, err := IdentityOf(state.PeerCertificates[0])
	if err != nil {
		return identity, err
	}
	return identity, m.admits(state.PeerCertificates[0].URIs[0].String(), identity)
}

func (m *mutual) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return m.client.ClientHandshake(ctx, authority, raw)
}

func (m *mutual) Info() credentials.ProtocolInfo { return m.client.Info() }

func (m *mutual) Clone() credentials.TransportCredentials {
	return &mutual{Mutual: m.Mutual, client: m.client.Clone()}
}

// OverrideServerName is part of the interface; the certificate's role is what counts.
func (m *mutual) OverrideServerName(string) error { return nil }
