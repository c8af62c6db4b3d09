package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"tollgate/cmd/tollgate/verb"
	"tollgate/extauthz/credential"
	"tollgate/internal/settings"
	"tollgate/xds/compile"
	"tollgate/xds/config"
	"tollgate/xds/files"
)

func validateVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use: "validate FILE…", Short: "Every fault of the gateway files and their key file at once: file:line:col, cause, next step", Args: cobra.MinimumNArgs(1),
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
			unread, err := keyStore(gateway, set.Dir())
			if err != nil {
				return err
			}
			if unread != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: the keys are not checked: %v\n", unread)
			}
			if s.On("strict") && (len(warnings) > 0 || unread != nil) {
				return errors.New("there are warnings, and --strict counts them as faults")
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "valid: %d listeners, %d routes, %d upstreams\n", len(gateway.Listeners), len(gateway.Routes), len(gateway.Upstreams))
			return err
		}),
	}
	cmd.Flags().Bool("strict", false, "warnings are faults")
	return cmd
}

// keyStore returns the faults of the key file that a gateway file names, or why
// it could not be read: who checks a file may not be who serves it.
func keyStore(gateway *config.Gateway, dir string) (unread, err error) {
	if gateway.Identity.APIKeys == nil {
		return nil, nil
	}
	path := gateway.Identity.APIKeys.Store
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	_, err = credential.ReadKeys(path)
	if errors.Is(err, fs.ErrPermission) {
		return err, nil
	}
	return nil, err
}
