package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"tollgate/cmd/tollgate/verb"
	"tollgate/internal/settings"
)

// resendVerb sends a node again what it refused, once its cause is mended: a
// port that was taken, a file that was missing.
func resendVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use: "resend NODE", Short: "Send a node again what it refused", Args: cobra.ExactArgs(1),
		RunE: verb.Do(func(cmd *cobra.Command, args []string) error {
			s, err := settings.Load(cmd)
			if err != nil {
				return err
			}
			var faults []error
			for _, address := range s.List(settings.AdminAddress) {
				if _, err := ask(cmd.Context(), s, http.MethodPost, address, "/v1/resend?node="+url.QueryEscape(args[0])); err != nil {
					faults = append(faults, err)
				}
			}
			if len(faults) == len(s.List(settings.AdminAddress)) {
				return errors.Join(faults...)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%q is sent again what it refused: tollgate status says what it makes of it\n", args[0])
			return nil
		}),
	}
	cmd.Flags().StringSlice(settings.AdminAddress, []string{"127.0.0.1:9900"}, "admin addresses of the control planes, `host:port,…`")
	settings.FileFlag(cmd.Flags())
	cmd.Flags().String(settings.DataDir, "", "`FOLDER` of state, for the admin token (default: .tollgate, beside the gateway file if -f names it)")
	return cmd
}
