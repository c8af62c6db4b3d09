package main

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"tollgate/api/contract"
	"tollgate/cmd/tollgate/fleet"
	"tollgate/cmd/tollgate/verb"
	"tollgate/extauthz"
	"tollgate/internal/daemon"
	"tollgate/internal/identity"
	"tollgate/internal/settings"
	"tollgate/ratelimit"
)

// role is one of our servers that take their config over xDS.
type role interface {
	daemon.Runner
	Ready() error
	Faults() []string
}

func extauthzVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use: "extauthz", Short: "The authorization server alone, its policies over xDS", Args: cobra.NoArgs,
		RunE: verb.Do(func(cmd *cobra.Command, _ []string) error {
			return runRole(cmd, "extauthz", settings.AuthzAddress, func(p place) (role, error) {
				dir := p.settings.Text(settings.DataDir)
				key, err := loadIdentity(p.settings, dir)
				if err != nil {
					return nil, err
				}
				cfg := authzConfig(p, p.xdsServers, key)
				cfg.KeysPath, cfg.KeysBase = p.settings.Text(settings.Keys), "."
				return extauthz.New(cfg)
			})
		}),
	}
	f := cmd.Flags()
	settings.Common(f, "127.0.0.1:9902")
	settings.TLSFlags(f)
	settings.JoinFlag(f)
	f.String(settings.AuthzAddress, "", "`ADDRESS` of ext_authz (default: the socket extauthz.sock in the data folder)")
	f.StringSlice(settings.XDSServers, nil, "control planes, `SERVERS` (default: the socket xds.sock in the data folder)")
	f.String(settings.Keys, "", "key `FILE` (default: the store that the gateway file names)")
	f.String(settings.IdentityKey, "", "Ed25519 key `FILE` that signs x-auth-token (default: identity.key in the data folder)")
	f.String(settings.IdentityJWKS, "", "`FILE` to publish its public half in, for services (default: identity.jwks beside it)")
	f.String(settings.NodeID, "", "unique `NAME` of this server")
	f.String(settings.DataDir, ".tollgate", "`FOLDER` of state")
	return cmd
}

func ratelimitVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ratelimit", Short: "The rate-limit server alone, its rules over xDS", Args: cobra.NoArgs,
		RunE: verb.Do(func(cmd *cobra.Command, _ []string) error {
			return runRole(cmd, "ratelimit", settings.LimitAddress, func(p place) (role, error) {
				return ratelimit.New(limitConfig(p, p.xdsServers))
			})
		}),
	}
	f := cmd.Flags()
	settings.Common(f, "127.0.0.1:9903")
	settings.TLSFlags(f)
	settings.JoinFlag(f)
	f.String(settings.DataDir, ".tollgate", "`FOLDER` of state")
	f.String(settings.LimitAddress, "", "`ADDRESS` of the rate-limit service (default: the socket ratelimit.sock in the data folder)")
	f.StringSlice(settings.XDSServers, nil, "control planes, `SERVERS` (default: the socket xds.sock in the data folder)")
	f.String(settings.RedisURL, "", "`URL` of Redis (default: counters in memory)")
	f.String(settings.NodeID, "", "unique `NAME` of this server")
	return cmd
}

// runRole runs one role with its admin address until the process is told to stop.
func runRole(cmd *cobra.Command, name, addressFlag string, build func(place) (role, error)) error {
	s, err := settings.Load(cmd)
	if err != nil {
		return err
	}
	log, err := s.Logger()
	if err != nil {
		return err
	}
	if err := s.PlainAdmin(); err != nil {
		return err
	}
	hangup := daemon.CatchHangup() // what a role reads, it watches
	ctx := cmd.Context()
	p := place{settings: s, dataDir: s.Text(settings.DataDir), log: log, metrics: s.Metrics()}
	if p.xdsServers, err = s.Servers(settings.XDSServers, p.dataDir); err != nil {
		return err
	}
	if err := s.OwnFolder(p.dataDir); err != nil {
		return err
	}
	at, err := s.Place(addressFlag, p.dataDir)
	if err != nil {
		return err
	}
	who, err := fleet.Of(ctx, s, name, p.dataDir, log, append(slices.Clone(p.xdsServers), at.String())...)
	if err != nil {
		return err
	}
	p.trust = who
	if p.listener, err = listen(ctx, p, addressFlag); err != nil {
		return err
	}
	defer func() { _ = p.listener.Close() }() // also when it never served
	adminListener, err := daemon.Listen(ctx, s.Admin(), "--"+settings.AdminAddress)
	if err != nil {
		return err
	}
	server, err := build(p)
	if err != nil {
		return err
	}
	token, err := settings.AdminToken(p.dataDir)
	if err != nil {
		return err
	}
	admin := daemon.NewAdmin(daemon.AdminConfig{
		Listener: adminListener, Metrics: p.metrics, Log: log, Token: token, Hosts: s.List(settings.AdminHost),
		Readiness: func() ([]string, error) { return append(server.Faults(), who.Faults()...), server.Ready() },
	})
	announce := daemon.RunnerFunc(func(ctx context.Context) error {
		if err := verb.Await(ctx, server.Ready); err != nil {
			return nil //nolint:nilerr // told to stop before it was ready
		}
		return sayRole(cmd.OutOrStdout(), s.On(settings.JSON), name, p.listener.Addr().String(), adminListener.Addr().String())
	})
	return daemon.Run(ctx, server, who, admin, announce, hangup.Runner(log))
}

func authzConfig(p place, servers []string, key ed25519.PrivateKey) extauthz.Config {
	return extauthz.Config{
		Listener: p.listener, XDSServers: servers, NodeID: nodeID(p, "extauthz"), IdentityKey: key,
		Log: p.log, Metrics: p.metrics, ServerOptions: serverOptions(p.trust), XDSDialOptions: p.trust.Dial(p.settings.Sockets(p.log)),
	}
}

func limitConfig(p place, servers []string) ratelimit.Config {
	return ratelimit.Config{
		Listener: p.listener, XDSServers: servers, NodeID: nodeID(p, "ratelimit"), RedisURL: p.settings.Text(settings.RedisURL),
		Log: p.log, Metrics: p.metrics, ServerOptions: serverOptions(p.trust), XDSDialOptions: p.trust.Dial(p.settings.Sockets(p.log)),
	}
}

// loadIdentity reads the key that signs x-auth-token, or makes one.
func loadIdentity(s settings.Settings, dataDir string) (ed25519.PrivateKey, error) {
	path := s.Text(settings.IdentityKey)
	if path == "" {
		path = filepath.Join(dataDir, "identity.key")
	}
	return identity.LoadOrCreatePublished(path, s.Text(settings.IdentityJWKS))
}

// serverOptions are those of the two servers on the request path: only proxies
// come in, an idle connection of a stopped one is noticed, pings are welcome.
func serverOptions(t *fleet.Trust) []grpc.ServerOption {
	return []grpc.ServerOption{
		t.Server(contract.RoleEdge),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 5 * time.Second, MaxConnectionAge: t.ConnectionAge()}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		grpc.MaxConcurrentStreams(100_000),
	}
}

// nodeID names this process to the control plane: the name of its certificate,
// which is the only one it may have there; --node-id; else the role, the
// machine and the port or the socket, which stay the same over a restart.
func nodeID(p place, role string) string {
	if p.trust.Name != "" {
		return p.trust.Name
	}
	if id := p.settings.Text(settings.NodeID); id != "" {
		return id
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	door := strings.TrimSuffix(filepath.Base(p.listener.Addr().String()), ".sock")
	if _, port, err := net.SplitHostPort(door); err == nil {
		door = port
	}
	if door == role {
		return role + "-" + host
	}
	return fmt.Sprintf("%s-%s-%s", role, host, door)
}
