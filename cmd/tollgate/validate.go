package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"tollgate/cmd/tollgate/verb"
	"tollgate/internal/settings"
	"tollgate/xds/compile"
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
			gateway, warnings, err := set.Parse()
			for _, w := range warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), w)
			}
			if err != nil {
				return err
			}
			_, left := compile.Compile(gateway, compile.Scope{})
			for _, w := range left {
				fmt.Fprintln(cmd.ErrOrStderr(), "note: "+w)
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
