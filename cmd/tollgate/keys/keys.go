// Package keys is `tollgate keys`: the life of API keys, from the operator's
// side. Invariant: a secret is printed once, when it is made, and nothing else
// that is printed here can be used to call anybody or to find a key. That holds
// for what a verb was given, too: a leaked key is not leaked again.
package keys

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tollgate/api/contract"
	"tollgate/cmd/tollgate/verb"
	"tollgate/extauthz/credential"
	"tollgate/internal/settings"
	"tollgate/xds/files"
)

const overlapFlag = "overlap"

// Command is the verb.
func Command() *cobra.Command {
	cmd := &cobra.Command{Use: "keys", Short: "API keys: create, list, rotate and revoke them; a secret is shown once, only its hash is stored"}
	one := func(use, short string, args cobra.PositionalArgs, do func(*cobra.Command, []string) error) *cobra.Command {
		c := &cobra.Command{Use: use, Short: short, Args: usage(args), RunE: masked(verb.Do(do))}
		f := c.Flags()
		settings.FileFlag(f)
		f.String(settings.Keys, "", "key `FILE` (default: the store that the gateway file names)")
		f.Bool(settings.JSON, false, "print JSON")
		return c
	}
	creator := one("create", "Create a key in the store of the gateway file", cobra.NoArgs, create)
	f := creator.Flags()
	f.String("tenant", "", "`TENANT` that the key speaks for")
	f.String("owner", "", "who holds it, a `NAME` for logs and auth.user")
	f.StringSlice("permission", nil, "`RESOURCE:ACTION`, a role, or *; may be repeated")
	f.String("expires", "", "how long it is good for, such as `90d` (default: no end)")
	rotator := one("rotate ID", "Create a successor of a key, which itself ends after the overlap", cobra.ExactArgs(1), rotate)
	rotator.Flags().String(overlapFlag, "24h", "how long both are good, a `DURATION`; 0s ends the old one at once")
	verb.Parent(
		cmd, creator, rotator,
		one("list", "List the keys of the store, never their hashes", cobra.NoArgs, list),
		one("revoke ID", "Revoke a key, named by its id or by itself; authorization servers hear of it within a second", cobra.ExactArgs(1), revoke),
	)
	cmd.RunE = masked(cmd.RunE)
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return mask(err) })
	return cmd
}

// usage makes wrong arguments an error of usage.
func usage(args cobra.PositionalArgs) cobra.PositionalArgs {
	return masked(func(cmd *cobra.Command, given []string) error {
		if err := args(cmd, given); err != nil {
			return settings.Usagef("`%s`: %v", cmd.CommandPath(), err)
		}
		return nil
	})
}

// masked leaves the secrets of keys out of the errors of what it runs.
func masked(do func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error { return mask(do(cmd, args)) }
}

func mask(err error) error {
	if err == nil || credential.Masked(err.Error()) == err.Error() {
		return err
	}
	text := errors.New(credential.Masked(err.Error()))
	var failed verb.Failure
	if errors.As(err, &failed) {
		return verb.Failed(text)
	}
	return settings.Usagef("%w", text)
}

func create(cmd *cobra.Command, _ []string) error {
	s, err := settings.Load(cmd)
	if err != nil {
		return err
	}
	spec := credential.KeySpec{Tenant: s.Text("tenant"), Owner: s.Text("owner"), Permissions: s.List("permission")}
	if text := s.Text("expires"); text != "" {
		if spec.Lifetime, err = duration("expires", text); err == nil && spec.Lifetime == 0 {
			err = settings.Usagef("--expires %q: write a duration above 0, such as 90d or 12h", text)
		}
	}
	if err != nil {
		return err
	}
	at, err := open(s)
	if err != nil {
		return err
	}
	if spec.Tenant == "" {
		return settings.Usagef("`%s` needs --tenant NAME, whom the key speaks for%s", cmd.CommandPath(), at.choice())
	}
	if err := at.admits(spec.Tenant); err != nil {
		return err
	}
	key, secret, err := credential.CreateKey(at.path, spec, time.Now())
	if err != nil {
		return err
	}
	at.warn(cmd.ErrOrStderr(), spec.Permissions)
	return at.show(cmd, s, key, secret, nil)
}

func rotate(cmd *cobra.Command, args []string) error {
	s, err := settings.Load(cmd)
	if err != nil {
		return err
	}
	overlap, err := duration(overlapFlag, s.Text(overlapFlag))
	if err != nil {
		return err
	}
	at, err := open(s)
	if err != nil {
		return err
	}
	old, key, secret, err := credential.RotateKey(at.path, args[0], overlap, time.Now())
	if err != nil {
		return err
	}
	return at.show(cmd, s, key, secret, &old)
}

func revoke(cmd *cobra.Command, args []string) error {
	s, err := settings.Load(cmd)
	if err != nil {
		return err
	}
	at, err := open(s)
	if err != nil {
		return err
	}
	key, err := credential.RevokeKey(at.path, args[0], time.Now())
	if err != nil {
		return err
	}
	if s.On(settings.JSON) {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(line(&key, time.Now()))
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "key %s of tenant %s is revoked since %s\n", key.ID, verb.Printable(key.Tenant), key.Revoked.Format(time.RFC3339))
	return err
}

func list(cmd *cobra.Command, _ []string) error {
	s, err := settings.Load(cmd)
	if err != nil {
		return err
	}
	at, err := open(s)
	if err != nil {
		return err
	}
	keys, err := credential.ReadKeys(at.path)
	if err != nil {
		return err
	}
	now := time.Now()
	lines := []record{}
	for i := range keys {
		lines = append(lines, line(&keys[i], now))
	}
	if s.On(settings.JSON) {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"store": at.path, "keys": lines})
	}
	return table(cmd.OutOrStdout(), lines)
}

// record is what anybody may read of a key.
type record struct {
	ID          string   `json:"id"`
	State       string   `json:"state"` // live, expired or revoked
	Tenant      string   `json:"tenant"`
	Owner       string   `json:"owner,omitempty"`
	Permissions []string `json:"permissions"`
	Created     string   `json:"created,omitempty"`
	Expires     string   `json:"expires,omitempty"`
	Revoked     string   `json:"revoked,omitempty"`
}

func line(k *credential.Key, now time.Time) record {
	return record{
		ID: k.ID, State: k.State(now), Tenant: k.Tenant, Owner: k.Owner, Permissions: append([]string{}, k.Permissions...),
		Created: stamp(k.Created), Expires: stamp(k.Expires), Revoked: stamp(k.Revoked),
	}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func table(out io.Writer, lines []record) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSTATE\tTENANT\tOWNER\tPERMISSIONS\tCREATED\tEXPIRES\tREVOKED")
	for _, l := range lines {
		row := []string{l.ID, l.State, l.Tenant, l.Owner, strings.Join(l.Permissions, ","), l.Created, l.Expires, l.Revoked}
		for i, cell := range row {
			if row[i] = verb.Printable(cell); cell == "" {
				row[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// store is a key file and what the gateway file says of it, if it was named.
type store struct {
	path    string
	header  string
	tenants []string // nil: not known
	roles   []string // as well known as tenants
}

// open finds the key file. Without a gateway file --keys is enough, so that a
// key can be revoked while that file is broken.
func open(s settings.Settings) (store, error) {
	if len(s.List(settings.File)) == 0 {
		if s.Text(settings.Keys) == "" {
			return store{}, settings.Usagef("name the gateway file with -f FILE, or the key file with --keys FILE")
		}
		return store{path: s.Text(settings.Keys), header: contract.HeaderKey}, nil
	}
	set, err := files.New(s.List(settings.File))
	if err != nil {
		return store{}, err
	}
	gateway, _, err := set.Parse()
	if err != nil {
		return store{}, fmt.Errorf("%w\n(--keys FILE without -f needs no gateway file)", err)
	}
	if gateway.Identity.APIKeys == nil {
		return store{}, errors.New("the gateway file has no identity.api_keys: add `api_keys: {header: x-api-key, store: file:keys.yaml}`")
	}
	out := store{path: s.Text(settings.Keys), header: gateway.Identity.APIKeys.Header, tenants: []string{}}
	for _, t := range gateway.Tenants {
		out.tenants = append(out.tenants, t.Name)
	}
	out.roles = slices.Sorted(maps.Keys(gateway.Identity.Roles))
	if out.path == "" {
		out.path = gateway.Identity.APIKeys.Store
		if !filepath.IsAbs(out.path) {
			out.path = filepath.Join(set.Dir(), out.path)
		}
	}
	return out, nil
}

// choice names the tenants that a key may speak for, as far as they are known.
func (at *store) choice() string {
	if len(at.tenants) == 0 {
		return ""
	}
	return "; the gateway file has " + strings.Join(at.tenants, ", ")
}

// admits refuses what the gateway would refuse: a tenant it does not know.
func (at *store) admits(tenant string) error {
	if at.tenants == nil || slices.Contains(at.tenants, tenant) || slices.Contains(at.tenants, "*") {
		return nil
	}
	return fmt.Errorf("--tenant %q is not in the gateway file, so the key would be refused; its tenants: %s", tenant, strings.Join(at.tenants, ", "))
}

// warn names permissions that grant nothing: a role may come later, so that the
// key is made all the same.
func (at *store) warn(out io.Writer, permissions []string) {
	roles := strings.Join(at.roles, ", ")
	if roles == "" {
		roles = "none"
	}
	for _, p := range permissions {
		if at.tenants == nil || p == "*" || strings.Contains(p, ":") || slices.Contains(at.roles, p) {
			continue
		}
		fmt.Fprintf(out, "warning: --permission %q grants nothing: it is neither RESOURCE:ACTION nor a role of the gateway file; its roles: %s\n", p, verb.Printable(roles))
	}
}

// show prints a new key, the only time that its secret is seen.
func (at *store) show(cmd *cobra.Command, s settings.Settings, key credential.Key, secret string, old *credential.Key) error {
	if s.On(settings.JSON) {
		out := map[string]any{"id": key.ID, "key": secret, "tenant": key.Tenant, "owner": key.Owner, "permissions": key.Permissions, "store": at.path}
		if !key.Expires.IsZero() {
			out["expires"] = stamp(key.Expires)
		}
		if old != nil {
			out["replaces"] = line(old, time.Now())
		}
		return json.NewEncoder(cmd.OutOrStdout()).Encode(out)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n", secret)
	fmt.Fprintf(cmd.ErrOrStderr(), "key %s of tenant %s is in %s, as a hash; the line on stdout is the only time the key itself is shown.\nSend it as: curl -H '%s: …'\n", key.ID, verb.Printable(key.Tenant), at.path, at.header)
	if old != nil {
		end := "is revoked now"
		if old.Revoked.IsZero() {
			end = "is good until " + stamp(old.Expires)
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "It replaces key %s, which %s.\n", old.ID, end)
	}
	return err
}

// duration takes Go's durations and whole days.
func duration(flag, text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, settings.Usagef("--%s %q: write a duration such as 90d or 12h", flag, text)
	}
	return d, nil
}
