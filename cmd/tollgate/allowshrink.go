package main

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"tollgate/cmd/tollgate/verb"
	"tollgate/internal/settings"
)

// allowShrinkVerb lets a change that waits because it takes away too much.
func allowShrinkVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use: "allow-shrink", Short: "Let what waits because it takes away too many routes or endpoints", Args: cobra.NoArgs,
		RunE: verb.Do(func(cmd *cobra.Command, _ []string) error {
			s, err := settings.Load(cmd)
			if err != nil {
				return err
			}
			var faults []error
			for _, address := range s.List(settings.AdminAddress) {
				if _, err := ask(cmd.Context(), s, http.MethodPost, address, "/v1/allow-shrink"); err != nil {
					faults = append(faults, err)
				}
			}
			if err := errors.Join(faults...); err != nil {
				return err
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "what waited is served: tollgate status says what that is")
			return nil
		}),
	}
	cmd.Flags().StringSlice(settings.AdminAddress, []string{"127.0.0.1:9900"}, "admin addresses of the control planes, `host:port,…`")
	settings.FileFlag(cmd.Flags())
	cmd.Flags().String(settings.DataDir, "", "`FOLDER` of state, for the admin token (default: .tollgate, beside the gateway file if -f names it)")
	return cmd
}
