package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"tollgate/api/contract"
	"tollgate/cmd/tollgate/verb"
	"tollgate/envoy"
	"tollgate/internal/daemon"
	"tollgate/internal/settings"
	"tollgate/xds/agent"
)

// RunEnvoy is the verb of a proxy on a machine of its own: it joins, starts
// Envoy, renews its certificate, and drains it when told to stop.
func RunEnvoy() *cobra.Command {
	cmd := &cobra.Command{
		Use: "run", Short: "A supervised Envoy of a fleet: joins, renews its certificate, drains when told to stop", Args: cobra.NoArgs,
		RunE: verb.Do(runEnvoy),
	}
	f := cmd.Flags()
	settings.Common(f, "127.0.0.1:9904")
	settings.TLSFlags(f)
	settings.JoinFlag(f)
	f.StringSlice(settings.XDSServers, nil, "control planes, `SERVERS` (default: the socket xds.sock in the data folder)")
	f.String(settings.EnvoyAdmin, "", "`ADDRESS` of Envoy's own admin, loopback or a socket (default: envoy-admin.sock in the data folder)")
	f.String(settings.EnvoyPath, "", "Envoy `BINARY` (also TOLLGATE_ENVOY; default: envoy on PATH, else .tools/envoy)")
	f.Int(settings.Workers, 0, "Envoy's worker threads (default: one a core)")
	f.String(settings.DataDir, ".tollgate", "`FOLDER` of state")
	f.String(settings.NodeID, "", "unique `NAME` of the proxy, where no certificate says it (default: the host's name)")
	f.String("zone", "", "availability `ZONE` of the proxy")
	return cmd
}

func runEnvoy(cmd *cobra.Command, _ []string) error {
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
	hangup := daemon.CatchHangup() // what it reads itself, it watches
	told := cmd.Context()
	adminListener, err := daemon.Listen(told, s.Admin(), "--"+settings.AdminAddress)
	if err != nil {
		return err
	}
	log = log.With("component", "envoy")
	metrics := s.Metrics()
	proxy, relay, who, err := newProxy(told, s, metrics, log)
	if err != nil {
		return err
	}
	ready := func() error { return proxy.Ready(told, 1) }
	admin := daemon.NewAdmin(daemon.AdminConfig{
		Listener: adminListener, Metrics: metrics, Log: log, Hosts: s.List(settings.AdminHost), Open: map[string]http.Handler{"GET /metrics/envoy": proxy.Metrics()},
		Readiness: func() ([]string, error) { return append(who.Faults(), relay.Faults()...), ready() },
	})
	// The proxy outlives the signal until it has drained.
	alive, end := context.WithCancel(context.WithoutCancel(told))
	defer end()
	stop := daemon.RunnerFunc(func(ctx context.Context) error {
		select {
		case <-ctx.Done(): // something failed
		case <-told.Done():
		}
		admin.Stopping()
		proxy.Stop(context.WithoutCancel(ctx))
		end()
		return nil
	})
	announce := daemon.RunnerFunc(func(ctx context.Context) error {
		if verb.Await(ctx, ready) != nil || told.Err() != nil {
			return nil
		}
		return say(cmd, s, proxy, adminListener.Addr().String())
	})
	return daemon.Run(alive, proxy, relay, who, admin, stop, announce, hangup.Runner(log, proxy.Reload))
}

func say(cmd *cobra.Command, s settings.Settings, proxy *envoy.Supervisor, admin string) error {
	if !s.On(settings.JSON) {
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "envoy is ready; admin http://%s\n", admin)
		return err
	}
	return json.NewEncoder(cmd.OutOrStdout()).Encode(struct {
		Ready bool           `json:"ready"`
		Role  string         `json:"role"`
		Admin string         `json:"admin"`
		PID   int            `json:"pid"`
		PIDs  map[string]int `json:"pids"`
	}{true, contract.RoleEdge, admin, os.Getpid(), map[string]int{"envoy": proxy.PID()}})
}

func newProxy(ctx context.Context, s settings.Settings, metrics *prometheus.Registry, log *slog.Logger) (*envoy.Supervisor, *agent.Agent, *Trust, error) {
	path, err := envoy.Locate(ctx, s.Text(settings.EnvoyPath), ".")
	if err != nil {
		return nil, nil, nil, err
	}
	dir, err := s.DataFolder(".")
	if err == nil {
		err = s.OwnFolder(dir)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	servers, err := s.Servers(settings.XDSServers, dir)
	if err != nil {
		return nil, nil, nil, err
	}
	adminAt, err := s.EnvoyAdmin(dir)
	if err != nil {
		return nil, nil, nil, err
	}
	who, err := Of(ctx, s, contract.RoleEdge, dir, log, servers...)
	if err != nil {
		return nil, nil, nil, err
	}
	if who.Source != nil && who.run == nil {
		if err := who.writeProxy(dir); err != nil {
			return nil, nil, nil, err
		}
		who.run = func(ctx context.Context) error { return who.keepProxy(ctx, dir) }
	}
	relay, at, err := newAgent(ctx, s, who, servers, dir, metrics, log)
	if err != nil {
		return nil, nil, nil, err
	}
	b := envoy.Bootstrap{
		NodeID: who.Name, Zone: s.Text("zone"), TrustDomain: who.Domain,
		XDSServers: []string{at},
	}
	if b.NodeID == "" {
		b.NodeID = s.Text(settings.NodeID)
	}
	if b.NodeID == "" {
		if b.NodeID, err = os.Hostname(); err != nil {
			return nil, nil, nil, err
		}
	}
	proxy, err := envoy.NewSupervisor(ctx, envoy.SupervisorConfig{
		Path: path, Dir: dir, Bootstrap: b, Admin: adminAt, Concurrency: s.Number(settings.Workers), Output: s.Stderr(), Log: log, DieWithParent: true, Metrics: metrics,
	})
	return proxy, relay, who, err
}
