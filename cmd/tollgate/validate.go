package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"tollgate/cmd/tollgate/verb"
	"tollgate/internal/settings"
	"tollgate/xds/config"
	"tollgate/xds/files"
)

func validateVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use: "validate FILE…", Short: "Every fault of the gateway files at once: file:line:col, cause, next step", Args: cobra.MinimumNArgs(1),
		RunE: verb.Do(func(cmd *cobra.Command, args []string) error {
			s, err := settings.Load(cmd)
			if err != nil {
				return err
			}
			set, err := files.New(args)
			if err != nil {
				return err
			}
			sources, values, err := set.Read()
			if err != nil {
				return err
			}
			gateway, warnings, err := config.Parse(sources, values)
			for _, w := range warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), w)
			}
			if err != nil {
				return err
			}
			if s.On("strict") && len(warnings) > 0 {
				return errors.New("there are warnings, and --strict counts them as faults")
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "valid: %d listeners, %d routes, %d upstreams\n", len(gateway.Listeners), len(gateway.Routes), len(gateway.Upstreams))
			return err
		}),
	}
	cmd.Flags().Bool("strict", false, "warnings are faults")
	return cmd
}
