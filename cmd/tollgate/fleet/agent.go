package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"tollgate/api/contract"
	"tollgate/cmd/tollgate/verb"
	"tollgate/internal/daemon"
	"tollgate/internal/peer"
	"tollgate/internal/settings"
	"tollgate/xds/agent"
)

// RunAgent is the verb of an agent beside a proxy that somebody else starts.
func RunAgent() *cobra.Command {
	cmd := &cobra.Command{
		Use: "agent", Short: "Stands beside a proxy: keeps what it accepted, serves that when no control plane answers", Args: cobra.NoArgs,
		Long: "Stands beside a proxy: keeps what it accepted on disk, and serves that when no control plane answers.\n" +
			"`tollgate envoy run` has one of its own. For an Envoy that something else starts, run this, print its bootstrap\n" +
			"with `tollgate envoy bootstrap --xds-servers unix:DATA-DIR/run/agent.sock`, and start it in DATA-DIR, where\n" +
			"the files of its identity are.",
		RunE: verb.Do(runAgent),
	}
	f := cmd.Flags()
	settings.Common(f, "127.0.0.1:9905")
	settings.TLSFlags(f)
	settings.JoinFlag(f)
	f.StringSlice(settings.XDSServers, nil, "control planes, `SERVERS` (default: the socket xds.sock in the data folder)")
	f.String(settings.DataDir, ".tollgate", "`FOLDER` of state")
	return cmd
}

func runAgent(cmd *cobra.Command, _ []string) error {
	s, err := settings.Load(cmd)
	if err != nil {
		return err
	}
	log, err := s.Logger()
	if err != nil {
		return err
	}
	log = log.With("component", "agent")
	if err := s.PlainAdmin(); err != nil {
		return err
	}
	hangup := daemon.CatchHangup() // what it reads, it watches
	ctx := cmd.Context()
	adminListener, err := daemon.Listen(ctx, s.Admin(), "--"+settings.AdminAddress)
	if err != nil {
		return err
	}
	dir, err := s.DataFolder(".")
	if err == nil {
		err = s.OwnFolder(dir)
	}
	if err != nil {
		return err
	}
	servers, err := s.Servers(settings.XDSServers, dir)
	if err != nil {
		return err
	}
	who, err := Of(ctx, s, contract.RoleEdge, dir, log, servers...)
	if err != nil {
		return err
	}
	metrics := s.Metrics()
	relay, at, err := newAgent(ctx, s, who, servers, dir, metrics, log)
	if err != nil {
		return err
	}
	admin := daemon.NewAdmin(daemon.AdminConfig{
		Listener: adminListener, Metrics: metrics, Log: log, Hosts: s.List(settings.AdminHost),
		Readiness: func() ([]string, error) { return append(who.Faults(), relay.Faults()...), nil },
	})
	announce := daemon.RunnerFunc(func(context.Context) error {
		return sayAgent(cmd, s.On(settings.JSON), dir, at, adminListener.Addr().String())
	})
	return daemon.Run(ctx, relay, who, admin, announce, hangup.Runner(log))
}

func sayAgent(cmd *cobra.Command, asJSON bool, dir, address, admin string) error {
	if !asJSON {
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "agent is ready on %s; admin http://%s\nstart Envoy in %s, with what `tollgate envoy bootstrap --xds-servers %s` prints\n", address, admin, dir, address)
		return err
	}
	return json.NewEncoder(cmd.OutOrStdout()).Encode(struct {
		Ready   bool   `json:"ready"`
		Role    string `json:"role"`
		Address string `json:"address"`
		Admin   string `json:"admin"`
		PID     int    `json:"pid"`
	}{true, "agent", address, admin, os.Getpid()})
}

// newAgent listens on a socket in the folder of state and returns its address.
func newAgent(ctx context.Context, s settings.Settings, who *Trust, servers []string, dir string, metrics *prometheus.Registry, log *slog.Logger) (*agent.Agent, string, error) {
	at, err := peer.Parse(contract.SocketPrefix + filepath.Join(dir, "run", "agent.sock"))
	if err != nil {
		return nil, "", fmt.Errorf("--%s: %w", settings.DataDir, err)
	}
	sockets := s.Sockets(log)
	listener, err := sockets.Listen(ctx, at, "--"+settings.DataDir)
	if err != nil {
		return nil, "", err
	}
	relay, err := agent.New(agent.Config{
		Listener: listener, ServerOptions: []grpc.ServerOption{grpc.Creds(peer.Credentials(peer.Plain()))},
		Servers: servers, DialOptions: who.Dial(sockets), NodeID: who.Name, Dir: filepath.Join(dir, "accepted"), Metrics: metrics, Log: log,
	})
	return relay, at.String(), err
}
