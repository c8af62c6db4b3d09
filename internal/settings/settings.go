// Package settings is a process's own configuration: addresses, log level,
// where its peers are. Invariant: a flag wins over the environment, the
// environment over the settings file; a key that is no flag is an error.
package settings

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"tollgate/internal/daemon"
)

// The flags, and by that the settings: --redis-url is TOLLGATE_REDIS_URL in the
// environment and redis-url in the file of --settings. A flag wins over the
// environment, the environment over the file.
const (
	File         = "file"
	SettingsFile = "settings"
	LogLevel     = "log-level"
	JSON         = "json"
	XDSAddress   = "xds-address"
	AuthzAddress = "extauthz-address"
	LimitAddress = "ratelimit-address"
	AdminAddress = "admin-address"
	EnvoyAdmin   = "envoy-admin-address"
	XDSServers   = "xds-servers"
	AuthzServers = "extauthz-servers"
	LimitServers = "ratelimit-servers"
	RedisURL     = "redis-url"
	DataDir      = "data-dir"
	EnvoyPath    = "envoy-path"
	NoEnvoy      = "no-envoy"
	Workers      = "envoy-concurrency"
	FreePorts    = "free-ports"
	Demo         = "demo"
	Keys         = "keys"
	IdentityKey  = "identity-key"
	NodeID       = "node-id"
	Insecure     = "insecure"
	TLSCert      = "tls-cert"
	TLSKey       = "tls-key"
	TLSCA        = "tls-ca"
)

// Settings are the process's own: flags, environment and settings file.
type Settings struct{ v *viper.Viper }

// Common adds the flags that every long-lived verb has.
func Common(f *pflag.FlagSet, admin string) {
	f.String(SettingsFile, "", "settings `FILE` (YAML, keys named as the flags)")
	f.String(LogLevel, "info", "debug, info, warn or error")
	f.Bool(JSON, false, "print one line of JSON on stdout when ready")
	f.String(AdminAddress, admin, "`ADDRESS` of /healthz, /readyz, /metrics and the operator's API")
	f.Bool(Insecure, false, "allow plain text off loopback")
	f.String(TLSCert, "", "certificate chain `FILE` (PEM) of xDS, ext_authz and rate limit")
	f.String(TLSKey, "", "private key `FILE` (PEM)")
	f.String(TLSCA, "", "CA `FILE` (PEM) that clients and servers of these must show a certificate of")
}

// FileFlag adds -f.
func FileFlag(f *pflag.FlagSet) {
	f.StringSliceP(File, "f", nil, "gateway `FILE` or folder of *.yaml; may be repeated")
}

// DataFlag adds --data-dir.
func DataFlag(f *pflag.FlagSet) {
	f.String(DataDir, "", "`FOLDER` of state (default: .tollgate beside the gateway file)")
}

// Load reads the settings of a command. Unknown keys of the file are an error.
func Load(cmd *cobra.Command) (Settings, error) {
	v := viper.New()
	v.SetEnvPrefix("TOLLGATE")
	v.SetEnvKeyReplacer(strings.NewReplacer("-", "_"))
	v.AutomaticEnv()
	if err := v.BindPFlags(cmd.Flags()); err != nil {
		return Settings{}, err
	}
	if err := v.BindEnv(EnvoyPath, "TOLLGATE_ENVOY_PATH", "TOLLGATE_ENVOY"); err != nil {
		return Settings{}, err
	}
	if file := v.GetString(SettingsFile); file != "" {
		v.SetConfigFile(file)
		v.SetConfigType("yaml")
		if err := v.ReadInConfig(); err != nil {
			return Settings{}, fmt.Errorf("--settings %s: %w", file, err)
		}
		var known []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
		for _, key := range v.AllKeys() {
			if !slices.Contains(known, key) {
				return Settings{}, fmt.Errorf("--settings %s: no setting is named %q; the settings are the flags of `%s --help`", file, key, cmd.CommandPath())
			}
		}
	}
	return Settings{v}, nil
}

// Text is the value of a flag.
func (s Settings) Text(flag string) string { return s.v.GetString(flag) }

// On is the value of a switch.
func (s Settings) On(flag string) bool { return s.v.GetBool(flag) }

// Number is the value of a count.
func (s Settings) Number(flag string) int { return s.v.GetInt(flag) }

// List takes "a,b", a YAML list and repeated flags alike.
func (s Settings) List(flag string) []string {
	var out []string
	for _, item := range s.v.GetStringSlice(flag) {
		for part := range strings.SplitSeq(item, ",") {
			if part = strings.TrimSpace(part); part != "" {
				out = append(out, part)
			}
		}
	}
	return out
}

// Logger is the process's, on standard error.
func (s Settings) Logger() (*slog.Logger, error) {
	return daemon.Logger(os.Stderr, s.Text(LogLevel))
}

// Address is where a flag says to listen; with --free-ports any free port of
// loopback.
func (s Settings) Address(flag string) string {
	if s.On(FreePorts) {
		return "127.0.0.1:0"
	}
	return s.Text(flag)
}

// DataFolder makes the folder of state and returns it: --data-dir, else
// .tollgate beside the gateway file.
func (s Settings) DataFolder(beside string) (string, error) {
	dir := s.Text(DataDir)
	if dir == "" {
		dir = filepath.Join(beside, ".tollgate")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("--%s: %w", DataDir, err)
	}
	return dir, nil
}
