package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"tollgate/cmd/tollgate/verb"
	"tollgate/internal/settings"
	"tollgate/xds/discovery"
)

func registryTokenVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use: "registry-token", Short: "Print the token with which one service registers its instances, and no other", Args: cobra.NoArgs,
		RunE: verb.Do(func(cmd *cobra.Command, _ []string) error {
			s, err := settings.Load(cmd)
			if err != nil {
				return err
			}
			if s.Text("service") == "" {
				return settings.Usagef("name the service with --service: the name that `discovery.registry` has in the gateway file")
			}
			secret, err := discovery.LoadOrCreateSecret(filepath.Join(s.Text(settings.DataDir), "registry.token"))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), discovery.ServiceToken(secret, s.Text("service")))
			return err
		}),
	}
	cmd.Flags().String("service", "", "`NAME` that the service registers under")
	cmd.Flags().String(settings.DataDir, ".tollgate", "`FOLDER` of state of the control plane")
	return cmd
}
