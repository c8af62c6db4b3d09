package main

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"net"
	"os"
	"path/filepath"
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
				cfg := authzConfig(p, p.settings.List(settings.XDSServers), key)
				cfg.KeysPath, cfg.KeysBase = p.settings.Text(settings.Keys), "."
				return extauthz.New(cfg)
			})
		}),
	}
	f := cmd.Flags()
	settings.Common(f, "127.0.0.1:9902")
	settings.TLSFlags(f)
	settings.JoinFlag(f)
	f.String(settings.AuthzAddress, "127.0.0.1:9001", "`ADDRESS` of ext_authz")
	f.StringSlice(settings.XDSServers, []string{"127.0.0.1:18000"}, "control planes, `host:port,…`")
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
				return ratelimit.New(limitConfig(p, p.settings.List(settings.XDSServers)))
			})
		}),
	}
	f := cmd.Flags()
	settings.Common(f, "127.0.0.1:9903")
	settings.TLSFlags(f)
	settings.JoinFlag(f)
	f.String(settings.DataDir, ".tollgate", "`FOLDER` of state")
	f.String(settings.LimitAddress, "127.0.0.1:8081", "`ADDRESS` of the rate-limit service")
	f.StringSlice(settings.XDSServers, []string{"127.0.0.1:18000"}, "control planes, `host:port,…`")
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
	listener, err := daemon.Listen(ctx, s.Address(addressFlag), "--"+addressFlag)
	if err != nil {
		return err
	}
	adminListener, err := daemon.Listen(ctx, s.Address(settings.AdminAddress), "--"+settings.AdminAddress)
	if err != nil {
		return err
	}
	who, err := fleet.Of(ctx, s, name, s.Text(settings.DataDir), log, append(s.List(settings.XDSServers), s.Address(addressFlag))...)
	if err != nil {
		return err
	}
	metrics := daemon.NewRegistry()
	server, err := build(place{settings: s, trust: who, listener: listener, log: log, metrics: metrics})
	if err != nil {
		return err
	}
	admin := daemon.NewAdmin(daemon.AdminConfig{
		Listener: adminListener, Metrics: metrics, Log: log,
		Readiness: func() ([]string, error) { return append(server.Faults(), who.Faults()...), server.Ready() },
	})
	announce := daemon.RunnerFunc(func(ctx context.Context) error {
		if err := verb.Await(ctx, server.Ready); err != nil {
			return nil //nolint:nilerr // told to stop before it was ready
		}
		return sayRole(cmd.OutOrStdout(), s.On(settings.JSON), name, listener.Addr().String(), adminListener.Addr().String())
	})
	return daemon.Run(ctx, server, who, admin, announce, hangup.Runner(log))
}

func authzConfig(p place, servers []string, key ed25519.PrivateKey) extauthz.Config {
	return extauthz.Config{
		Listener: p.listener, XDSServers: servers, NodeID: nodeID(p, "extauthz"), IdentityKey: key,
		Log: p.log, Metrics: p.metrics, ServerOptions: serverOptions(p.trust), XDSDialOptions: p.trust.Dial(),
	}
}

func limitConfig(p place, servers []string) ratelimit.Config {
	return ratelimit.Config{
		Listener: p.listener, XDSServers: servers, NodeID: nodeID(p, "ratelimit"), RedisURL: p.settings.Text(settings.RedisURL),
		Log: p.log, Metrics: p.metrics, ServerOptions: serverOptions(p.trust), XDSDialOptions: p.trust.Dial(),
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
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 5 * time.Second, MaxConnectionAge: fleet.ConnectionAge}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		grpc.MaxConcurrentStreams(100_000),
	}
}

// nodeID names this process to the control plane: the name of its certificate,
// which is the only one it may have there; --node-id; else the role, the
// machine and the port, which stay the same over a restart.
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
	_, port, _ := net.SplitHostPort(p.listener.Addr().String())
	return fmt.Sprintf("%s-%s-%s", role, host, port)
}
