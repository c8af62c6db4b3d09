package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tollgate/cmd/tollgate/verb"
	"tollgate/extauthz/credential"
	"tollgate/internal/settings"
	"tollgate/xds/config"
	"tollgate/xds/files"
)

func keysVerb() *cobra.Command {
	cmd := &cobra.Command{Use: "keys", Short: "API keys: create one; the secret is shown once, only its hash is stored"}
	create := &cobra.Command{Use: "create", Short: "Create a key in the store of the gateway file", Args: cobra.NoArgs, RunE: verb.Do(createKey)}
	f := create.Flags()
	settings.FileFlag(f)
	f.String(settings.Keys, "", "key `FILE` (default: the store that the gateway file names)")
	f.String("tenant", "", "`TENANT` that the key speaks for")
	f.String("owner", "", "who holds it, a `NAME` for logs and auth.user")
	f.StringSlice("permission", nil, "`RESOURCE:ACTION`, a role, or *; may be repeated")
	f.String("expires", "", "how long it is good for, such as `90d` (default: no end)")
	f.Bool(settings.JSON, false, "print the key as JSON")
	return verb.Parent(cmd, create)
}

func createKey(cmd *cobra.Command, _ []string) error {
	s, err := settings.Load(cmd)
	if err != nil {
		return err
	}
	spec := credential.KeySpec{Tenant: s.Text("tenant"), Owner: s.Text("owner"), Permissions: s.List("permission")}
	if spec.Lifetime, err = lifetime(s.Text("expires")); err != nil {
		return err
	}
	path, header, err := keyStore(s, spec)
	if err != nil {
		return err
	}
	key, secret, err := credential.CreateKey(path, spec, time.Now())
	if err != nil {
		return err
	}
	if s.On(settings.JSON) {
		out := map[string]any{"id": key.ID, "key": secret, "tenant": key.Tenant, "owner": key.Owner, "permissions": key.Permissions, "store": path}
		if !key.Expires.IsZero() {
			out["expires"] = key.Expires.UTC().Format(time.RFC3339)
		}
		return json.NewEncoder(cmd.OutOrStdout()).Encode(out)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", secret)
	fmt.Fprintf(cmd.ErrOrStderr(), "key %s of tenant %s is in %s, as a hash; the line on stdout is the only time the key itself is shown.\nSend it as: curl -H '%s: …'\n", key.ID, key.Tenant, path, header)
	return err
}

// keyStore finds the key file, and refuses what the gateway would refuse: a
// tenant it does not know.
func keyStore(s settings.Settings, spec credential.KeySpec) (path, header string, err error) {
	if len(s.List(settings.File)) == 0 {
		if s.Text(settings.Keys) == "" {
			return "", "", settings.Usagef("name the gateway file with -f FILE, or the key file with --keys FILE")
		}
		return s.Text(settings.Keys), "x-api-key", nil
	}
	set, err := files.New(s.List(settings.File))
	if err != nil {
		return "", "", err
	}
	sources, values, err := set.Read()
	if err != nil {
		return "", "", err
	}
	gateway, _, err := config.Parse(sources, values)
	if err != nil {
		return "", "", err
	}
	if gateway.Identity.APIKeys == nil {
		return "", "", errors.New("the gateway file has no identity.api_keys: add `api_keys: {header: x-api-key, store: file:keys.yaml}`")
	}
	known := false
	var names []string
	for _, t := range gateway.Tenants {
		known = known || t.Name == spec.Tenant || t.Name == "*"
		names = append(names, t.Name)
	}
	if !known {
		return "", "", fmt.Errorf("--tenant %q is not in the gateway file, so the key would be refused; its tenants: %s", spec.Tenant, strings.Join(names, ", "))
	}
	path = s.Text(settings.Keys)
	if path == "" {
		path = gateway.Identity.APIKeys.Store
		if !filepath.IsAbs(path) {
			path = filepath.Join(set.Dir(), path)
		}
	}
	return path, gateway.Identity.APIKeys.Header, nil
}

// lifetime takes Go's durations and whole days.
func lifetime(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil && n > 0 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, settings.Usagef("--expires %q: write a duration such as 90d or 12h", text)
	}
	return d, nil
}
