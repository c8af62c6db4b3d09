package main

import (
	"fmt"
	"log/slog"
	"os"
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
	flagFile         = "file"
	flagSettings     = "settings"
	flagLogLevel     = "log-level"
	flagJSON         = "json"
	flagXDSAddress   = "xds-address"
	flagAuthzAddress = "extauthz-address"
	flagLimitAddress = "ratelimit-address"
	flagAdminAddress = "admin-address"
	flagEnvoyAdmin   = "envoy-admin-address"
	flagXDSServers   = "xds-servers"
	flagAuthzServers = "extauthz-servers"
	flagLimitServers = "ratelimit-servers"
	flagRedisURL     = "redis-url"
	flagDataDir      = "data-dir"
	flagEnvoyPath    = "envoy-path"
	flagNoEnvoy      = "no-envoy"
	flagWorkers      = "envoy-concurrency"
	flagFreePorts    = "free-ports"
	flagDemo         = "demo"
	flagKeys         = "keys"
	flagIdentityKey  = "identity-key"
	flagNodeID       = "node-id"
	flagInsecure     = "insecure"
	flagTLSCert      = "tls-cert"
	flagTLSKey       = "tls-key"
	flagTLSCA        = "tls-ca"
)

// settings are the process's own: flags, environment and settings file.
type settings struct{ v *viper.Viper }

// common adds the flags that every long-lived verb has.
func common(f *pflag.FlagSet, admin string) {
	f.String(flagSettings, "", "settings `FILE` (YAML, keys named as the flags)")
	f.String(flagLogLevel, "info", "debug, info, warn or error")
	f.Bool(flagJSON, false, "print one line of JSON on stdout when ready")
	f.String(flagAdminAddress, admin, "`ADDRESS` of /healthz, /readyz, /metrics and the operator's API")
	f.Bool(flagInsecure, false, "allow plain text off loopback")
	f.String(flagTLSCert, "", "certificate chain `FILE` (PEM) of xDS, ext_authz and rate limit")
	f.String(flagTLSKey, "", "private key `FILE` (PEM)")
	f.String(flagTLSCA, "", "CA `FILE` (PEM) that clients and servers of these must show a certificate of")
}

func fileFlag(f *pflag.FlagSet) {
	f.StringSliceP(flagFile, "f", nil, "gateway `FILE` or folder of *.yaml; may be repeated")
}

func dataFlag(f *pflag.FlagSet) {
	f.String(flagDataDir, "", "`FOLDER` of state (default: .tollgate beside the gateway file)")
}

// load reads the settings of a command. Unknown keys of the file are an error.
func load(cmd *cobra.Command) (settings, error) {
	v := viper.New()
	v.SetEnvPrefix("TOLLGATE")
	v.SetEnvKeyReplacer(strings.NewReplacer("-", "_"))
	v.AutomaticEnv()
	if err := v.BindPFlags(cmd.Flags()); err != nil {
		return settings{}, err
	}
	if err := v.BindEnv(flagEnvoyPath, "TOLLGATE_ENVOY_PATH", "TOLLGATE_ENVOY"); err != nil {
		return settings{}, err
	}
	if file := v.GetString(flagSettings); file != "" {
		v.SetConfigFile(file)
		v.SetConfigType("yaml")
		if err := v.ReadInConfig(); err != nil {
			return settings{}, fmt.Errorf("--settings %s: %w", file, err)
		}
		var known []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
		for _, key := range v.AllKeys() {
			if !slices.Contains(known, key) {
				return settings{}, fmt.Errorf("--settings %s: no setting is named %q; the settings are the flags of `%s --help`", file, key, cmd.CommandPath())
			}
		}
	}
	return settings{v}, nil
}

func (s settings) text(flag string) string { return s.v.GetString(flag) }
func (s settings) on(flag string) bool     { return s.v.GetBool(flag) }

// list takes "a,b", a YAML list and repeated flags alike.
func (s settings) list(flag string) []string {
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

func (s settings) logger() (*slog.Logger, error) {
	return daemon.Logger(os.Stderr, s.text(flagLogLevel))
}

// address is where a flag says to listen; with --free-ports any free port of
// loopback.
func (s settings) address(flag string) string {
	if s.on(flagFreePorts) {
		return "127.0.0.1:0"
	}
	return s.text(flag)
}
