package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"tollgate/cmd/tollgate/fleet"
	"tollgate/cmd/tollgate/verb"
	"tollgate/internal/daemon"
	"tollgate/internal/peer"
	"tollgate/internal/settings"
	"tollgate/xds"
	"tollgate/xds/files"
	"tollgate/xds/trust"
)

func xdsVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use: "xds", Short: "The control plane alone: the gateway file to every proxy over xDS", Args: verb.FileByFlag,
		RunE: verb.Do(runXDS),
	}
	f := cmd.Flags()
	settings.Common(f, "127.0.0.1:9900")
	settings.TLSFlags(f)
	settings.CAFlags(f)
	f.Duration(settings.CertTTL, trust.DefaultTTL, "how long members' certificates are good for; they are renewed at half of it")
	settings.FileFlag(f)
	settings.DataFlag(f)
	f.String(settings.XDSAddress, "", "`ADDRESS` of xDS (default: the socket xds.sock in the data folder)")
	f.StringSlice(settings.AuthzServers, nil, "authorization `SERVERS`, as the proxies reach them (default: the socket extauthz.sock in the data folder)")
	f.StringSlice(settings.LimitServers, nil, "rate-limit `SERVERS`, as the proxies reach them (default: the socket ratelimit.sock in the data folder)")
	f.Bool(settings.AllowShrink, false, "no change waits because it takes away more than 30% of the routes or endpoints (and at least 10)")
	f.Bool(settings.StrictStart, false, "a bad gateway file ends the start, even if the last good one could be served")
	f.Bool(settings.FreePorts, false, "every address, the file's listeners included, on a free port of loopback")
	return cmd
}

func runXDS(cmd *cobra.Command, _ []string) error {
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
	hangup := daemon.CatchHangup()
	ctx := cmd.Context()
	adminListener, err := daemon.Listen(ctx, s.Admin(), "--"+settings.AdminAddress)
	if err != nil {
		return err
	}
	set, dataDir, err := gatewayFiles(s)
	if err != nil {
		return err
	}
	p := place{settings: s, dataDir: dataDir, log: log, metrics: s.Metrics()}
	at, extauthz, ratelimit, err := places(s, dataDir, log)
	if err != nil {
		return err
	}
	who, authority, err := fleet.ControlPlane(s, dataDir, at.String(), log)
	if err != nil {
		return err
	}
	p.trust = who
	if p.listener, err = listen(ctx, p, settings.XDSAddress); err != nil {
		return err
	}
	p.parts = slices.Concat(extauthz, ratelimit, []string{adminListener.Addr().String(), p.listener.Addr().String()})
	c, err := controlPlane(p, set, authority, extauthz, ratelimit)
	if err != nil {
		return errors.Join(err, p.listener.Close())
	}
	token, err := settings.OpenAdmin(dataDir, adminListener.Addr())
	if err != nil {
		return err
	}
	adminServer := daemon.NewAdmin(daemon.AdminConfig{
		Listener: adminListener, Metrics: p.metrics, Log: log, Token: token, Hosts: s.List(settings.AdminHost),
		Routes: map[string]http.Handler{"/v1/": c.Admin()}, Own: registryRoutes(c),
		Readiness: func() ([]string, error) { return append(c.Faults(), who.Faults()...), nil },
	})
	announce := daemon.RunnerFunc(func(context.Context) error {
		return sayRole(cmd.OutOrStdout(), s.On(settings.JSON), "xds", c.Address().String(), adminListener.Addr().String())
	})
	reload := hangup.Runner(log, func(context.Context) { c.Reload() })
	return daemon.Run(ctx, c, adminServer, announce, reload)
}

// places are where a control plane listens, and what it tells proxies of the
// other roles. Of servers that no flag names it tells sockets, which each proxy
// looks for on its own machine: on a port, where proxies of others come, it warns.
func places(s settings.Settings, dataDir string, log *slog.Logger) (at peer.Address, extauthz, ratelimit []string, err error) {
	extauthz, err = s.Servers(settings.AuthzServers, dataDir)
	ratelimit, err2 := s.Servers(settings.LimitServers, dataDir)
	at, err3 := s.Place(settings.XDSAddress, dataDir)
	if err := errors.Join(err, err2, err3); err != nil || at.Socket() {
		return at, extauthz, ratelimit, err
	}
	for flag, servers := range map[string][]string{settings.AuthzServers: extauthz, settings.LimitServers: ratelimit} {
		if len(s.List(flag)) == 0 {
			log.Warn("every proxy is told a socket of its own machine: name the servers as the proxies reach them", "component", "xds", "without", "--"+flag, "address", servers[0])
		}
	}
	return at, extauthz, ratelimit, nil
}

// place is where a role or the control plane runs: its folder of state, its
// bound address, its log, its metrics.
type place struct {
	settings settings.Settings
	trust    *fleet.Trust
	dataDir  string
	listener net.Listener
	log      *slog.Logger
	metrics  *prometheus.Registry
	parts    []string // addresses of our own parts; sockets may be among them
	proxy    string   // node id of the proxy that is ours; "": none is

	xdsServers []string // of a role
}

// registryRoutes are those by which services register, each with its own token.
func registryRoutes(c *xds.ControlPlane) map[string]http.Handler {
	const instance = " /v1/registry/{service}/{instance}"
	return map[string]http.Handler{http.MethodPut + instance: c.Admin(), http.MethodDelete + instance: c.Admin()}
}

// listen binds where a flag says.
func listen(ctx context.Context, p place, flag string) (net.Listener, error) {
	a, err := p.settings.Place(flag, p.dataDir)
	if err != nil {
		return nil, err
	}
	return p.settings.Sockets(p.log).Listen(ctx, a, "--"+flag)
}

// gatewayFiles are the files of -f and the folder of state.
func gatewayFiles(s settings.Settings) (set *files.Set, dataDir string, err error) {
	if set, err = files.New(s.List(settings.File)); err != nil {
		return nil, "", settings.Usagef("%w", err)
	}
	if dataDir, err = s.DataFolder(set.Dir()); err != nil {
		return nil, "", err
	}
	return set, dataDir, s.OwnFolder(dataDir)
}

// controlPlane makes the control plane of the settings; extauthz and ratelimit
// are the addresses of our own roles, as the proxies reach them.
func controlPlane(p place, set *files.Set, authority *trust.Authority, extauthz, ratelimit []string) (*xds.ControlPlane, error) {
	return xds.New(xds.Config{
		Files: set, DataDir: p.dataDir, Listener: p.listener, Identity: p.trust.Source, Authority: authority,
		ExtAuthz: extauthz, RateLimit: ratelimit, TrustDomain: p.trust.Domain,
		FreePorts: p.settings.On(settings.FreePorts), StrictStart: p.settings.On(settings.StrictStart), AllowShrink: p.settings.On(settings.AllowShrink),
		OneBox: p.listener.Addr().Network() == "unix", Parts: p.parts, Proxy: p.proxy,
		Metrics: p.metrics, Log: p.log,
	})
}
