package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"tollgate/internal/daemon"
	"tollgate/internal/settings"
	"tollgate/xds"
	"tollgate/xds/admin"
	"tollgate/xds/compile"
	"tollgate/xds/discovery"
	"tollgate/xds/files"
	"tollgate/xds/ledger"
	"tollgate/xds/push"
)

func xdsVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use: "xds", Short: "The control plane alone: the gateway file to every proxy over xDS", Args: cobra.NoArgs,
		RunE: verb(runXDS),
	}
	f := cmd.Flags()
	settings.Common(f, "127.0.0.1:9900")
	settings.FileFlag(f)
	settings.DataFlag(f)
	f.String(settings.XDSAddress, "127.0.0.1:18000", "`ADDRESS` of xDS")
	f.StringSlice(settings.AuthzServers, []string{"127.0.0.1:9001"}, "authorization servers, `host:port,…`, as the proxies reach them")
	f.StringSlice(settings.LimitServers, []string{"127.0.0.1:8081"}, "rate-limit servers, `host:port,…`, as the proxies reach them")
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
	ctx := cmd.Context()
	adminListener, err := daemon.Listen(ctx, s.Address(settings.AdminAddress), "--"+settings.AdminAddress)
	if err != nil {
		return err
	}
	metrics := daemon.NewRegistry()
	c, err := newControl(ctx, s, log, metrics, servers{extauthz: s.List(settings.AuthzServers), ratelimit: s.List(settings.LimitServers)})
	if err != nil {
		return err
	}
	adminServer := daemon.NewAdmin(daemon.AdminConfig{
		Listener: adminListener, Metrics: metrics, Log: log, Routes: c.routes,
		Readiness: func() ([]string, error) { return c.faults(), nil },
	})
	announce := daemon.RunnerFunc(func(context.Context) error {
		return sayRole(cmd.OutOrStdout(), s.On(settings.JSON), "xds", c.listener.Addr().String(), adminListener.Addr().String())
	})
	return daemon.Run(ctx, c, adminServer, announce)
}

// servers are the addresses of our own roles, as the proxies reach them.
type servers struct{ extauthz, ratelimit []string }

// control is a control plane with everything around it.
type control struct {
	set      *files.Set
	listener net.Listener
	server   *grpc.Server
	plane    *xds.ControlPlane
	push     *push.Server
	registry *discovery.Registry
	routes   map[string]http.Handler
	token    string
	dataDir  string
}

func newControl(ctx context.Context, s settings.Settings, log *slog.Logger, metrics *prometheus.Registry, at servers) (*control, error) {
	log = log.With("component", "xds")
	set, err := files.New(s.List(settings.File))
	if err != nil {
		return nil, err
	}
	dataDir, err := dataFolder(s, set.Dir())
	if err != nil {
		return nil, err
	}
	token, err := registryToken(dataDir)
	if err != nil {
		return nil, err
	}
	creds, err := s.ServerCredentials(settings.XDSAddress)
	if err != nil {
		return nil, err
	}
	listener, err := daemon.Listen(ctx, s.Address(settings.XDSAddress), "--"+settings.XDSAddress)
	if err != nil {
		return nil, err
	}
	book, registry := ledger.New(time.Now), discovery.NewRegistry(time.Now)
	if err := registry.Restore(filepath.Join(dataDir, "registry.json")); err != nil {
		return nil, err
	}
	engine, err := push.New(push.Config{Log: log, Metrics: metrics, Ledger: book})
	if err != nil {
		return nil, err
	}
	plane, err := xds.New(xds.Config{
		Source: set, Publisher: engine, Instances: instances{registry}, ExtAuthz: at.extauthz, RateLimit: at.ratelimit, TLS: s.Text(settings.TLSCert) != "",
		Port: newPorts(s.On(settings.FreePorts)).of, Metrics: metrics, Log: log,
	})
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	server := grpc.NewServer(append(push.ServerOptions(), creds)...)
	engine.Register(server)
	handler := admin.New(admin.Config{Ledger: book, Registry: registry, Token: token, Now: time.Now})
	return &control{
		set: set, listener: listener, server: server, plane: plane, push: engine, registry: registry,
		routes: map[string]http.Handler{"/v1/": handler}, token: token, dataDir: dataDir,
	}, nil
}

// Run serves until ctx ends. Streams of xDS never end by themselves, so they
// are cut: every client keeps what it has and comes back.
func (c *control) Run(ctx context.Context) error {
	serve := daemon.RunnerFunc(func(ctx context.Context) error {
		stopped := context.AfterFunc(ctx, c.server.Stop)
		defer stopped()
		return c.server.Serve(c.listener)
	})
	return daemon.Run(ctx, c.plane, c.push, c.registry, serve)
}

// faults are what an operator should mend while the last good release is served.
func (c *control) faults() []string {
	faults := slices.Clone(c.plane.Faults())
	if err := c.registry.Fault(); err != nil {
		faults = append(faults, err.Error())
	}
	return faults
}

// instances shows the registry to the compiler.
type instances struct{ registry *discovery.Registry }

func (i instances) Changed() <-chan struct{} { return i.registry.Changed() }

func (i instances) Instances() map[string][]compile.Instance {
	out := map[string][]compile.Instance{}
	for service, list := range i.registry.Snapshot() {
		for _, one := range list {
			out[service] = append(out[service], compile.Instance{
				ID: one.ID, Address: one.Address, Weight: one.Weight, Zone: one.Zone, Draining: one.Draining,
			})
		}
	}
	return out
}

// dataFolder is --data-dir, else .tollgate beside the gateway file.
func dataFolder(s settings.Settings, beside string) (string, error) {
	dir := s.Text(settings.DataDir)
	if dir == "" {
		dir = filepath.Join(beside, ".tollgate")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("--%s: %w", settings.DataDir, err)
	}
	return dir, nil
}

// registryToken reads the token that instances register with, or makes one.
func registryToken(dir string) (string, error) {
	path := filepath.Join(dir, "registry.token")
	data, err := os.ReadFile(path)
	if err == nil {
		if token := strings.TrimSpace(string(data)); len(token) >= 32 {
			return token, nil
		}
		return "", fmt.Errorf("%s: the token is shorter than 32 characters: remove the file and a new one is made", path)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return "", err
	}
	token := hex.EncodeToString(raw)
	return token, renameio.WriteFile(path, []byte(token+"\n"), 0o600)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
