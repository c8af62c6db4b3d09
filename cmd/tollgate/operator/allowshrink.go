package operator

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"tollgate/cmd/tollgate/verb"
	"tollgate/internal/settings"
)

// AllowShrink is the verb that lets a change that waits because it takes away too much.
func AllowShrink() *cobra.Command {
	cmd := &cobra.Command{
		Use: "allow-shrink files|instances", Short: "Let what waits because it takes away too many routes or endpoints",
		Long: "files: lets the change of the files that waits as it is on disk now, because it takes away more than 30% of the routes or endpoints.\n" +
			"instances: drops the registered instances that fell silent together and were kept.",
		Args: cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs), ValidArgs: []string{"files", "instances"},
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
				body, err := ask(cmd.Context(), s, http.MethodPost, address, "/v1/allow-shrink/"+args[0])
				var answer struct{ Waited string }
				if err == nil {
					err = json.Unmarshal(body, &answer)
				}
				switch {
				case err != nil:
					faults = append(faults, err)
				case answer.Waited == "":
					fmt.Fprintf(cmd.ErrOrStderr(), "%s: no %s wait\n", address, args[0])
				default:
					fmt.Fprintf(cmd.ErrOrStderr(), "%s: allowed: %q\n", address, answer.Waited)
				}
			}
			return errors.Join(faults...)
		}),
	}
	cmd.Flags().StringSlice(settings.AdminAddress, []string{"127.0.0.1:9900"}, "admin `ADDRESSES` of the control planes, host:port; where there is a folder of state, that of its control plane, else")
	settings.FileFlag(cmd.Flags())
	cmd.Flags().String(settings.DataDir, "", "`FOLDER` of state, for the admin token and address (default: .tollgate, beside the gateway file if -f names it)")
	return cmd
}
