// Package service is `tollgate service`: the demo services as processes.
// Invariant: the ready line is printed once its listeners are bound, so whoever
// reads it can connect.
package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tollgate/api/contract"
	"tollgate/cmd/tollgate/demo"
	"tollgate/cmd/tollgate/fleet"
	"tollgate/cmd/tollgate/verb"
	"tollgate/internal/daemon"
	"tollgate/internal/settings"
	"tollgate/services/order"
	"tollgate/services/user"
)

// Command is the verb.
func Command() *cobra.Command {
	cmd := &cobra.Command{Use: "service", Short: "A demo service: user or order", Hidden: true}
	userCmd := &cobra.Command{
		Use: "user", Short: "The user service", Args: cobra.NoArgs,
		RunE: verb.Do(func(cmd *cobra.Command, _ []string) error {
			return serve(cmd, "user", func(p place) (daemon.Runner, error) {
				return user.New(user.Config{
					HTTP: p.http, GRPC: p.grpc, DataDir: p.s.Text(settings.DataDir), Instance: p.instance, Zone: p.s.Text("zone"), Advertise: p.advertise,
					Audiences: p.s.List("audience"), JWKS: p.jwks, Registry: p.s.List("registry"),
					RegistryToken: p.token, RegistryTLS: p.trust.Web(), Log: p.log, Metrics: p.metrics,
				})
			})
		}),
	}
	flags(userCmd.Flags())
	orderCmd := &cobra.Command{
		Use: "order", Short: "The order service", Args: cobra.NoArgs,
		RunE: verb.Do(func(cmd *cobra.Command, _ []string) error {
			return serve(cmd, "order", func(p place) (daemon.Runner, error) {
				return order.New(order.Config{
					HTTP: p.http, GRPC: p.grpc, DataDir: p.s.Text(settings.DataDir), Instance: p.instance, Zone: p.s.Text("zone"), Advertise: p.advertise,
					Audiences: p.s.List("audience"), JWKS: p.jwks, Registry: p.s.List("registry"),
					RegistryToken: p.token, RegistryTLS: p.trust.Web(), UserGRPC: p.s.List("user-grpc"), Log: p.log, Metrics: p.metrics,
				})
			})
		}),
	}
	flags(orderCmd.Flags())
	orderCmd.Flags().StringSlice("user-grpc", nil, "instances of the user service, `ADDRESSES` (host:port of gRPC)")
	return verb.Parent(cmd, userCmd, orderCmd)
}

func flags(f *pflag.FlagSet) {
	f.String(settings.LogLevel, "info", "debug, info, warn or error")
	f.String("http", "127.0.0.1:0", "`ADDRESS` of HTTP")
	f.String("grpc", "127.0.0.1:0", "`ADDRESS` of gRPC")
	f.String(settings.DataDir, ".tollgate", "`FOLDER` of the database")
	f.String("instance", "", "unique `NAME` of this instance (default: the host's name and port)")
	f.String("zone", "", "availability `ZONE`")
	f.String("advertise", "", "`HOST` that proxies reach this instance at, when it listens on every interface (default: our address on the way to the registry)")
	f.StringSlice("registry", nil, "control planes, `URLS`: https://host:port of xDS for who joined, http:// of the admin address on one machine")
	settings.TLSFlags(f)
	settings.JoinFlag(f)
	f.Bool(settings.Insecure, false, "allow plain text off loopback")
	f.String("registry-token", "", "`FILE` with the registry's token (default: registry.token in the data folder)")
	f.String(settings.IdentityJWKS, "", "`FILE` or URL of the keys that sign x-auth-token (default: identity.jwks in the data folder)")
	f.StringSlice("audience", nil, "accepted audiences of x-auth-token: the `upstreams` that lead here")
}

// place is where a service runs.
type place struct {
	s          settings.Settings
	http, grpc net.Listener
	instance   string
	advertise  string
	jwks       string // file or URL
	token      string // file
	trust      *fleet.Trust
	log        *slog.Logger
	metrics    prometheus.Registerer
}

func serve(cmd *cobra.Command, name string, build func(place) (daemon.Runner, error)) error {
	s, err := settings.Load(cmd)
	if err != nil {
		return err
	}
	log, err := s.Logger()
	if err != nil {
		return err
	}
	hangup := daemon.CatchHangup()
	ctx := cmd.Context()
	p := place{s: s, metrics: s.Metrics()}
	if p.http, err = daemon.Listen(ctx, s.Text("http"), "--http"); err != nil {
		return err
	}
	if p.grpc, err = daemon.Listen(ctx, s.Text("grpc"), "--grpc"); err != nil {
		return err
	}
	if p.instance, err = instanceName(s, p.http); err != nil {
		return err
	}
	p.log = log.With("component", name, "node", p.instance)
	if p.advertise, err = advertised(ctx, s); err != nil {
		return err
	}
	if p.jwks = s.Text(settings.IdentityJWKS); p.jwks == "" {
		p.jwks = filepath.Join(s.Text(settings.DataDir), "identity.jwks")
	}
	if p.token = s.Text("registry-token"); p.token == "" {
		p.token = filepath.Join(s.Text(settings.DataDir), "registry.token")
	}
	// The admin address of loopback speaks HTTP; its registry asks for a token.
	registries := slices.DeleteFunc(fleet.Hosts(s), daemon.Loopback)
	if p.trust, err = fleet.Of(ctx, s, contract.RoleService, filepath.Join(s.Text(settings.DataDir), "instance", p.instance), p.log, registries...); err != nil {
		return err
	}
	server, err := build(p)
	if err != nil {
		return err
	}
	ready := struct {
		Ready bool `json:"ready"`
		demo.Instance
	}{true, demo.Instance{Service: name, PID: os.Getpid(), HTTP: p.http.Addr().String(), GRPC: p.grpc.Addr().String()}}
	// The listeners are bound: whoever connects from now on is answered.
	return errors.Join(json.NewEncoder(cmd.OutOrStdout()).Encode(ready), daemon.Run(ctx, server, p.trust, hangup.Runner(p.log)))
}

// advertised is --advertise, else the address that we have on the way to the
// registry: with a listener on every interface nothing else knows which of ours
// the proxies reach.
func advertised(ctx context.Context, s settings.Settings) (string, error) {
	registry := s.List("registry")
	if s.Text("advertise") != "" || len(registry) == 0 {
		return s.Text("advertise"), nil
	}
	for _, flag := range []string{"http", "grpc"} {
		host, _, err := net.SplitHostPort(s.Text(flag))
		if ip := net.ParseIP(host); err == nil && host != "" && (ip == nil || !ip.IsUnspecified()) {
			return "", nil
		}
	}
	at, err := url.Parse(registry[0])
	if err != nil {
		return "", fmt.Errorf("--registry %s: %w", registry[0], err)
	}
	way, err := (&net.Dialer{}).DialContext(ctx, "udp", at.Host) // sends nothing
	if err != nil {
		return "", fmt.Errorf("no way to --registry %s, so --advertise must say where proxies reach this instance: %w", registry[0], err)
	}
	host, _, err := net.SplitHostPort(way.LocalAddr().String())
	return host, errors.Join(err, way.Close())
}

func instanceName(s settings.Settings, l net.Listener) (string, error) {
	if name := s.Text("instance"); name != "" {
		return name, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return host + "-" + port, err
}
