package fleet

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"tollgate/cmd/tollgate/verb"
	"tollgate/internal/join"
	"tollgate/internal/settings"
	"tollgate/xds/trust"
)

// JoinToken is the verb that lets a process in.
func JoinToken() *cobra.Command {
	cmd := &cobra.Command{
		Use: "join-token [ROLE/NAME=FILE…]", Short: "Make a token with which one process gets its certificate; or many, each into its file",
		RunE: verb.Do(func(cmd *cobra.Command, args []string) error {
			s, err := settings.Load(cmd)
			if err != nil {
				return err
			}
			wanted, err := tokensOf(s, args)
			if err != nil {
				return err
			}
			tokens, err := openTokens(s)
			if err != nil {
				return err
			}
			for _, w := range wanted {
				token, err := tokens.Make(w.role, w.name, s.Span("ttl"))
				if err != nil {
					return err
				}
				if err := hand(cmd.OutOrStdout(), token, w.file); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	f := cmd.Flags()
	settings.DataFlag(f)
	settings.CAFlags(f)
	f.String("role", "", "edge, extauthz, ratelimit, service or client")
	f.String("name", "", "`NAME` of the member: the node id of an edge, the service of a service")
	f.Duration("ttl", time.Hour, "how long the token is good for")
	return cmd
}

type wanted struct{ role, name, file string }

// tokensOf are those of the arguments, or the one of --role and --name.
func tokensOf(s settings.Settings, args []string) ([]wanted, error) {
	if ttl := s.Span("ttl"); ttl <= 0 {
		return nil, settings.Usagef("--ttl %s: write how long the token is good for, such as 1h", ttl)
	}
	all := []wanted{{role: s.Text("role"), name: s.Text("name")}}
	if len(args) > 0 {
		if all[0].role != "" || all[0].name != "" {
			return nil, settings.Usagef("--role and --name are for one token, ROLE/NAME=FILE for many: write one of the two")
		}
		all = nil
	}
	for _, arg := range args {
		who, file, _ := strings.Cut(arg, "=")
		role, name, ok := strings.Cut(who, "/")
		if !ok || file == "" {
			return nil, settings.Usagef("%q: write ROLE/NAME=FILE, such as edge/edge-1=/run/edge-1.token", arg)
		}
		all = append(all, wanted{role, name, file})
	}
	for _, w := range all {
		if err := join.Valid(w.role, w.name); err != nil {
			return nil, settings.Usagef("%w", err)
		}
	}
	return all, nil
}

func openTokens(s settings.Settings) (*trust.Tokens, error) {
	dir, err := s.DataFolder(".")
	if err != nil {
		return nil, err
	}
	authority, err := OpenAuthority(s, dir)
	if err != nil {
		return nil, err
	}
	return trust.OpenTokens(dir, authority, time.Now)
}

func hand(w io.Writer, token, file string) error {
	if file == "" {
		_, err := fmt.Fprintln(w, token)
		return err
	}
	return renameio.WriteFile(file, []byte(token+"\n"), 0o600)
}

// CA is the verb about the CA of the data folder.
func CA() *cobra.Command {
	rotate := &cobra.Command{
		Use: "rotate", Short: "Add a root, which signs once every member has heard of it", Args: cobra.NoArgs,
		RunE: verb.Do(func(cmd *cobra.Command, _ []string) error {
			s, err := settings.Load(cmd)
			if err != nil {
				return err
			}
			dir := cmp.Or(s.Text(settings.DataDir), ".tollgate")
			if _, err := os.Stat(filepath.Join(dir, "ca")); err != nil && s.Text(settings.CACert) == "" {
				return fmt.Errorf("--%s %s holds no CA to rotate (%w): name the folder of the control planes", settings.DataDir, dir, err)
			}
			authority, err := OpenAuthority(s, dir)
			if err != nil {
				return err
			}
			if err := authority.Rotate(); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "a new root is in %s: members hear of it when they renew; it signs in %s, and the old one is believed %s longer\n", dir, trust.Overlap, trust.Overlap)
			return nil
		}),
	}
	settings.DataFlag(rotate.Flags())
	settings.CAFlags(rotate.Flags())
	cmd := &cobra.Command{Use: "ca", Short: "The CA of a fleet: rotate its root"}
	return verb.Parent(cmd, rotate)
}
