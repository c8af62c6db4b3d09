package operator

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"tollgate/cmd/tollgate/verb"
	"tollgate/internal/settings"
	"tollgate/xds/admin"
)

// Resend is the verb that sends a node again what it refused, once its cause is mended: a
// port that was taken, a file that was missing.
func Resend() *cobra.Command {
	cmd := &cobra.Command{
		Use: "resend NODE", Short: "Send a node again what it refused", Args: cobra.ExactArgs(1),
		RunE: verb.Do(func(cmd *cobra.Command, args []string) error {
			s, err := settings.Load(cmd)
			if err != nil {
				return err
			}
			addresses, err := s.Asked()
			if err != nil {
				return err
			}
			var faults []error
			for _, address := range addresses {
				body, err := ask(cmd.Context(), s, http.MethodPost, address, "/v1/resend?node="+url.QueryEscape(args[0]))
				var answer admin.Resent
				if err == nil {
					err = json.Unmarshal(body, &answer)
				}
				if err != nil {
					faults = append(faults, err)
					continue
				}
				said := "had refused nothing: it is sent again only what it has not answered for"
				if len(answer.Refused) > 0 {
					said = "is sent again " + verb.Printable(strings.Join(answer.Refused, ", ")) + ": `tollgate status` says what it makes of it"
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: %q %s\n", address, args[0], said)
			}
			// A node is connected to one of them; the others do not know it.
			if len(faults) == len(addresses) {
				return errors.Join(faults...)
			}
			return nil
		}),
	}
	cmd.Flags().StringSlice(settings.AdminAddress, []string{"127.0.0.1:9900"}, "admin `ADDRESSES` of the control planes, host:port; where there is a folder of state, that of its control plane, else")
	settings.FileFlag(cmd.Flags())
	cmd.Flags().String(settings.DataDir, "", "`FOLDER` of state, for the admin token and address (default: .tollgate, beside the gateway file if -f names it)")
	return cmd
}
