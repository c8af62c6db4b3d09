// Package fleet turns flags into trust: who this process is to the others, and
// whom it believes; with the verbs that only a fleet needs. Invariant: over TCP
// off this machine both ends show certificates, unless --insecure was written.
package fleet

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"tollgate/api/contract"
	"tollgate/internal/join"
	"tollgate/internal/peer"
	"tollgate/internal/settings"
	"tollgate/xds/trust"
)

// maxConnectionAge is that of connections to a server on the request path whose
// certificates live long.
const maxConnectionAge = 12 * time.Hour

// Trust is who a process is. The zero Trust is nobody, on plain text.
type Trust struct {
	Source peer.Source // nil: no certificate
	Name   string      // of the certificate
	Domain string      // of the certificate

	log    *slog.Logger
	faults func() error
	run    func(context.Context) error
}

// Of returns the trust of a role: by certificates of its own, by joining, or
// none where every address is on this machine or plain text was asked for.
// addresses are those that it listens on and asks.
func Of(ctx context.Context, s settings.Settings, role, dataDir string, log *slog.Logger, addresses ...string) (*Trust, error) {
	own, err := ownFiles(s)
	if own != nil || err != nil {
		return withSource(own, log, err)
	}
	if s.Text(settings.Join) != "" {
		return joined(ctx, s, role, dataDir, log)
	}
	if err := plain(s, addresses); err != nil {
		if join.Known(memberDir(dataDir, role)) { // a restart needs no token
			return joined(ctx, s, role, dataDir, log)
		}
		return nil, err
	}
	return &Trust{log: log}, nil
}

// ControlPlane returns the trust of a control plane with its CA, which is nil
// where certificates of one's own or plain text were asked for, or everybody is
// on this machine.
func ControlPlane(s settings.Settings, dataDir, address string, log *slog.Logger) (*Trust, *trust.Authority, error) {
	own, err := ownFiles(s)
	if own != nil || err != nil {
		t, err := withSource(own, log, err)
		return t, nil, err
	}
	meets := slices.Concat([]string{address}, s.List(settings.AuthzServers), s.List(settings.LimitServers))
	if s.On(settings.Insecure) || !slices.ContainsFunc(meets, func(a string) bool { return !local(a) }) {
		return &Trust{log: log}, nil, nil
	}
	authority, err := OpenAuthority(s, dataDir)
	if err != nil {
		return nil, nil, err
	}
	name, err := os.Hostname()
	if err != nil {
		return nil, nil, err
	}
	return &Trust{Source: authority.Own(contract.RoleXDS, name), Name: name, Domain: authority.Domain().Name(), log: log}, authority, nil
}

// OneMachine is the trust of parts that all live in one process.
func OneMachine(s settings.Settings, log *slog.Logger, addresses ...string) (*Trust, error) {
	for _, address := range addresses {
		if !local(address) && !s.On(settings.Insecure) {
			return nil, settings.Usagef("%s is a port, and `tollgate run` meets on sockets: start the roles one by one, which know each other by certificates, or accept plain text with --%s", address, settings.Insecure)
		}
	}
	return &Trust{log: log}, nil
}

// OpenAuthority reads the CA of the flags, or makes the one of the data folder.
func OpenAuthority(s settings.Settings, dataDir string) (*trust.Authority, error) {
	if (s.Text(settings.CACert) == "") != (s.Text(settings.CAKey) == "") {
		return nil, settings.Usagef("--%s and --%s belong together", settings.CACert, settings.CAKey)
	}
	ttl := s.Span(settings.CertTTL)
	if ttl != 0 && ttl < 2*time.Second {
		return nil, settings.Usagef("--%s %s: a certificate is renewed at half its life and counts in seconds: at least 2s", settings.CertTTL, ttl)
	}
	if ttl > trust.Overlap {
		return nil, settings.Usagef("--%s %s: at most %s, the time in which members hear of a new root", settings.CertTTL, ttl, trust.Overlap)
	}
	return trust.Open(trust.Config{Dir: dataDir, CertFile: s.Text(settings.CACert), KeyFile: s.Text(settings.CAKey), TTL: ttl, Now: time.Now})
}

func ownFiles(s settings.Settings) (*peer.Files, error) {
	cert, key, ca := s.Text(settings.TLSCert), s.Text(settings.TLSKey), s.Text(settings.TLSCA)
	if cert == "" && key == "" && ca == "" {
		return nil, nil
	}
	if cert == "" || key == "" || ca == "" {
		return nil, settings.Usagef("--%s, --%s and --%s belong together: both ends of a connection show a certificate and verify the other's", settings.TLSCert, settings.TLSKey, settings.TLSCA)
	}
	files, err := peer.OpenFiles(cert, key, ca)
	if err != nil {
		return nil, fmt.Errorf("--%s, --%s, --%s: %w", settings.TLSCert, settings.TLSKey, settings.TLSCA, err)
	}
	return files, nil
}

func withSource(files *peer.Files, log *slog.Logger, err error) (*Trust, error) {
	if err != nil {
		return nil, err
	}
	svid, err := files.GetX509SVID()
	if err != nil {
		return nil, err
	}
	who, err := peer.IdentityOf(svid.Certificates[0])
	return &Trust{Source: files, Name: who.Name, Domain: svid.ID.TrustDomain().Name(), log: log, faults: files.Fault}, err
}

func memberDir(dataDir, role string) string { return filepath.Join(dataDir, "member", role) }

func joined(ctx context.Context, s settings.Settings, role, dataDir string, log *slog.Logger) (*Trust, error) {
	cfg := join.Config{Dir: memberDir(dataDir, role), Token: s.Text(settings.Join), Servers: Hosts(s), Log: log}
	// A file may hold its token later; what was written can only be wrong.
	if text := cfg.Token; text != "" && !strings.HasPrefix(text, "file:") && !join.Known(cfg.Dir) {
		if _, err := join.ParseToken(text); err != nil {
			return nil, settings.Usagef("--%s: %w", settings.Join, err)
		}
	}
	if role == contract.RoleEdge {
		cfg.Changed = func(svid *x509svid.SVID, bundle *x509bundle.Bundle) error { return writeProxy(dataDir, svid, bundle) }
	}
	member, err := join.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	who, err := member.Identity()
	if err != nil {
		return nil, err
	}
	if who.Role != role {
		return nil, fmt.Errorf("--%s: the token is for a %s, this is a %s: `tollgate join-token --role %s` makes one", settings.Join, who.Role, role, role)
	}
	svid, err := member.GetX509SVID()
	if err != nil {
		return nil, err
	}
	return &Trust{Source: member, Name: who.Name, Domain: svid.ID.TrustDomain().Name(), log: log, faults: member.Fault, run: member.Run}, nil
}

// Hosts are the control planes of the flags, host:port.
func Hosts(s settings.Settings) []string {
	var out []string
	for _, one := range append(s.List(settings.XDSServers), s.List("registry")...) {
		out = append(out, strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(one, "https://"), "http://"), "/"))
	}
	return out
}

func plain(s settings.Settings, addresses []string) error {
	if s.On(settings.Insecure) {
		return nil
	}
	for _, address := range addresses {
		if !local(address) {
			return settings.Usagef("%s is a port: leave it out to meet on a socket, give --%s TOKEN or --%s, --%s and --%s, or accept plain text with --%s", address, settings.Join, settings.TLSCert, settings.TLSKey, settings.TLSCA, settings.Insecure)
		}
	}
	return nil
}

// local says whether an address is a socket's. A port of loopback belongs to
// every user of the machine.
func local(address string) bool { return strings.HasPrefix(address, contract.SocketPrefix) }

// Server are the credentials with which we listen: members of these roles come
// in.
func (t *Trust) Server(roles ...string) grpc.ServerOption {
	return grpc.Creds(peer.Credentials(t.tcp(roles)))
}

// Dial are the options to meet a control plane, on a socket or over TCP.
func (t *Trust) Dial(sockets peer.Sockets) []grpc.DialOption {
	return sockets.DialOptions(t.tcp([]string{contract.RoleXDS}))
}

// tcp are the credentials of what is no socket.
func (t *Trust) tcp(roles []string) credentials.TransportCredentials {
	if t.Source == nil {
		return peer.Plain()
	}
	return peer.Mutual{Source: t.Source, Roles: roles, Log: t.log}.Credentials()
}

// Web is how a client of HTTP meets a control plane; nil: over plain text.
func (t *Trust) Web() *tls.Config {
	if t.Source == nil {
		return nil
	}
	return peer.Mutual{Source: t.Source, Roles: []string{contract.RoleXDS}}.Client("http/1.1")
}

// ConnectionAge is after what time a server on the request path asks a client to
// come back over a new connection. All certificates of a fleet live as long as
// ours, and are renewed at half their life: after a third (gRPC adds up to a tenth
// of it) everybody shows a new one before the old one ends, which would cut calls.
func (t *Trust) ConnectionAge() time.Duration {
	if t.Source == nil {
		return maxConnectionAge
	}
	svid, err := t.Source.GetX509SVID()
	if err != nil {
		return maxConnectionAge
	}
	leaf := svid.Certificates[0]
	return min(maxConnectionAge, leaf.NotAfter.Sub(leaf.NotBefore)/3)
}

// Run renews what must be renewed until ctx ends.
func (t *Trust) Run(ctx context.Context) error {
	if t.run == nil {
		<-ctx.Done()
		return nil
	}
	return t.run(ctx)
}

// Faults are what an operator should mend.
func (t *Trust) Faults() []string {
	if t.faults == nil {
		return nil
	}
	if err := t.faults(); err != nil {
		return []string{err.Error()}
	}
	return nil
}
