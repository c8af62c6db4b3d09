package main

import (
	"fmt"
	"os"
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
			dir := s.Text(settings.DataDir)
			path := filepath.Join(dir, "registry.token")
			if _, err := os.Stat(path); err != nil { // one that is made now opens nothing
				return fmt.Errorf("--%s %s is no control plane's that has ever started (%w): name the folder of the control planes", settings.DataDir, dir, err)
			}
			secret, err := discovery.LoadOrCreateSecret(path)
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
