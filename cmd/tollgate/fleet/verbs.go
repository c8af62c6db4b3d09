package fleet

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

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
			tokens, err := openTokens(s, cmd.ErrOrStderr())
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
	planeFlag(f)
	settings.CAFlags(f)
	f.String("role", "", "edge, extauthz, ratelimit, service or client")
	f.String("name", "", "`NAME` of the member: the node id of an edge, the service of a service")
	f.Duration("ttl", time.Hour, "how long the token is good for")
	return cmd
}

// planeFlag adds --data-dir to a verb that takes no gateway file.
func planeFlag(f *pflag.FlagSet) {
	f.String(settings.DataDir, "", "`FOLDER` of state of the control planes (default: .tollgate)")
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

// openTokens opens those of the CA of the folder; of a CA that is made for it, it
// tells: it may be the wrong folder.
func openTokens(s settings.Settings, tell io.Writer) (*trust.Tokens, error) {
	dir, err := s.DataFolder(".")
	if err != nil {
		return nil, err
	}
	_, none := os.Stat(filepath.Join(dir, "ca"))
	authority, err := OpenAuthority(s, dir)
	if err != nil {
		return nil, err
	}
	if none != nil && s.Text(settings.CACert) == "" {
		fmt.Fprintf(tell, "made a new CA in %s: its control planes must use this --%s\n", dir, settings.DataDir)
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

// Members is the verb about who is in the fleet.
func Members() *cobra.Command {
	remove := &cobra.Command{
		Use: "remove ROLE/NAME…", Short: "Take members out of the fleet: what they have counts no more, and a new token lets the name in again", Args: cobra.MinimumNArgs(1),
		RunE: verb.Do(func(cmd *cobra.Command, args []string) error {
			s, err := settings.Load(cmd)
			if err != nil {
				return err
			}
			members, own, err := openMembers(s)
			if err != nil {
				return err
			}
			var until time.Time
			var faults []error
			for _, who := range args {
				role, name, _ := strings.Cut(who, "/")
				since, err := members.Remove(role, name, own)
				if err != nil {
					faults = append(faults, fmt.Errorf("%s: %w", who, err))
					continue
				}
				until = since
				fmt.Fprintf(cmd.ErrOrStderr(), "%s is out: the control planes end its connections within two seconds and take neither its certificate nor a token made before %s\n", who, since.Format(time.RFC3339))
			}
			time.Sleep(time.Until(until)) // under three seconds: a token that is made from now on counts
			return errors.Join(faults...)
		}),
	}
	list := &cobra.Command{
		Use: "list", Short: "Who was ever let in, and who was removed", Args: cobra.NoArgs,
		RunE: verb.Do(func(cmd *cobra.Command, _ []string) error {
			s, err := settings.Load(cmd)
			if err != nil {
				return err
			}
			members, _, err := openMembers(s)
			if err != nil {
				return err
			}
			removed := members.Removed()
			all := slices.AppendSeq(members.Known(), maps.Keys(removed))
			slices.Sort(all)
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "MEMBER\tREMOVED")
			for _, who := range slices.Compact(all) {
				when := "-"
				if since, is := removed[who]; is {
					when = since.Format(time.RFC3339)
				}
				fmt.Fprintf(table, "%s\t%s\n", who, when)
			}
			return errors.Join(table.Flush(), members.Fault())
		}),
	}
	for _, cmd := range []*cobra.Command{remove, list} {
		planeFlag(cmd.Flags())
	}
	return verb.Parent(&cobra.Command{Use: "members", Short: "Who is in the fleet: list, or remove one"}, list, remove)
}

// openMembers opens those of the folder of a control plane; own says that their
// certificates are the operator's, who alone knows the names.
func openMembers(s settings.Settings) (members *trust.Members, own bool, err error) {
	dir := cmp.Or(s.Text(settings.DataDir), ".tollgate")
	_, noCA := os.Stat(filepath.Join(dir, "join.key"))
	_, noPlane := os.Stat(filepath.Join(dir, "registry.token"))
	if noCA != nil && noPlane != nil {
		return nil, false, fmt.Errorf("--%s %s is no control plane's (%w): name the folder of the control planes", settings.DataDir, dir, noPlane)
	}
	members, err = trust.OpenMembers(dir, time.Now)
	return members, noCA != nil, err
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
	planeFlag(rotate.Flags())
	settings.CAFlags(rotate.Flags())
	cmd := &cobra.Command{Use: "ca", Short: "The CA of a fleet: rotate its root"}
	return verb.Parent(cmd, rotate)
}
