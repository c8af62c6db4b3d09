// Package settings is a process's own configuration: addresses, log level,
// where its peers are. Invariants: a flag wins over the environment, the
// environment over the settings file; every flag of every verb can be given in
// all three; a name that is no flag of any verb, or a value that the flag would
// refuse, is an error, never ignored.
package settings

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"tollgate/internal/daemon"
	"tollgate/internal/strictyaml"
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
	IdentityJWKS = "identity-jwks"
	NodeID       = "node-id"
	StrictStart  = "strict-start"
	AllowShrink  = "allow-shrink"
	Insecure     = "insecure"
	AllowUID     = "allow-uid"
	AdminHost    = "admin-host"
	TLSCert      = "tls-cert"
	TLSKey       = "tls-key"
	TLSCA        = "tls-ca"
	Join         = "join"
	CACert       = "ca-cert"
	CAKey        = "ca-key"
	CertTTL      = "certificate-ttl"
)

// Common adds the flags that every long-lived verb has.
func Common(f *pflag.FlagSet, admin string) {
	f.String(LogLevel, "info", "debug, info, warn or error")
	f.Bool(JSON, false, "print one line of JSON on stdout when ready")
	f.String(AdminAddress, admin, "`ADDRESS` of /healthz, /readyz, /metrics and the operator's API")
	f.StringSlice(AdminHost, nil, "`NAME` by which the admin address is asked, beside its address, localhost and this machine's name; may be repeated")
	f.Bool(Insecure, false, "accept plain text on ports")
	f.StringSlice(AllowUID, nil, "`UID` beside root's and our own that may use our sockets; may be repeated")
}

// TLSFlags adds those of certificates of one's own, which stand in for --join.
func TLSFlags(f *pflag.FlagSet) {
	f.String(TLSCert, "", "certificate chain `FILE` (PEM) that names spiffe://DOMAIN/ROLE/NAME, instead of one of tollgate's CA")
	f.String(TLSKey, "", "its private key `FILE` (PEM)")
	f.String(TLSCA, "", "`FILE` of the roots (PEM) that the others' certificates come from")
}

// JoinFlag adds --join.
func JoinFlag(f *pflag.FlagSet) {
	f.String(Join, "", "`TOKEN` of `tollgate join-token`, or file:PATH, for a certificate of the control plane's CA")
}

// CAFlags add those of the CA.
func CAFlags(f *pflag.FlagSet) {
	f.String(CACert, "", "CA `FILE` (PEM) that signs members' certificates (default: one of our own in the data folder)")
	f.String(CAKey, "", "its private key `FILE` (PEM)")
}

// Persistent adds the flag that every verb has, to the root of all.
func Persistent(f *pflag.FlagSet) {
	f.String(SettingsFile, "", "settings `FILE` (YAML, keys named as the flags)")
}

// FileFlag adds -f.
func FileFlag(f *pflag.FlagSet) {
	f.StringSliceP(File, "f", nil, "gateway `FILE` or folder of *.yaml; may be repeated")
}

// DataFlag adds --data-dir.
func DataFlag(f *pflag.FlagSet) {
	f.String(DataDir, "", "`FOLDER` of state (default: .tollgate beside the gateway file)")
}

// Load reads the settings of a command: what neither flag, environment nor file
// gives keeps its default. Every fault is in the error, which is a UsageError.
func Load(cmd *cobra.Command) (Settings, error) {
	v := viper.New()
	v.SetEnvPrefix("TOLLGATE")
	v.SetEnvKeyReplacer(strings.NewReplacer("-", "_"))
	v.AutomaticEnv()
	if err := v.BindEnv(EnvoyPath, "TOLLGATE_ENVOY_PATH", "TOLLGATE_ENVOY"); err != nil {
		return Settings{}, err
	}
	known := names(cmd.Root())
	faults := strangers(os.Environ(), known)
	if cmd.Flags().Lookup(SettingsFile) != nil {
		if err := v.BindPFlag(SettingsFile, cmd.Flags().Lookup(SettingsFile)); err != nil {
			return Settings{}, err
		}
		faults = append(faults, read(v, known)...)
	}
	flags := cmd.Flags()
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Name == SettingsFile || !v.IsSet(f.Name) {
			return
		}
		if err := flags.Set(f.Name, written(v, f)); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", origin(v, f.Name), err))
		}
	})
	s := Settings{flags, cmd.ErrOrStderr()}
	faults = append(append(faults, s.addresses()...), s.users()...)
	return s, usage(faults)
}

// read takes the file of --settings in.
func read(v *viper.Viper, known []string) []error {
	file := v.GetString(SettingsFile)
	if file == "" {
		return nil
	}
	f := viper.New()
	f.SetConfigFile(file)
	f.SetConfigType("yaml")
	if err := f.ReadInConfig(); err != nil {
		return []error{fmt.Errorf("--%s %s: %w", SettingsFile, file, err)}
	}
	var faults []error
	for _, key := range slices.Sorted(slices.Values(f.AllKeys())) {
		switch {
		case key == SettingsFile:
			faults = append(faults, fmt.Errorf("--%s %s: a settings file names no other", SettingsFile, file))
		case !slices.Contains(known, key):
			faults = append(faults, fmt.Errorf("--%s %s: no setting is named %q%s; the settings are the flags, see `tollgate VERB --help`", SettingsFile, file, key, strictyaml.Suggest(key, known)))
		}
	}
	if err := v.MergeConfigMap(f.AllSettings()); err != nil {
		faults = append(faults, fmt.Errorf("--%s %s: %w", SettingsFile, file, err))
	}
	return faults
}

// written is a value as it would stand on the command line.
func written(v *viper.Viper, f *pflag.Flag) string {
	if list, ok := v.Get(f.Name).([]any); ok {
		items := make([]string, 0, len(list))
		for _, item := range list {
			items = append(items, fmt.Sprint(item))
		}
		return strings.Join(items, ",")
	}
	return fmt.Sprint(v.Get(f.Name))
}

// origin says where a value that is no flag's came from.
func origin(v *viper.Viper, flag string) string {
	for _, variable := range variables(flag) {
		if os.Getenv(variable) != "" {
			return variable
		}
	}
	return fmt.Sprintf("--%s %s: %s", SettingsFile, v.GetString(SettingsFile), flag)
}

// Settings are the process's own: flags, environment and settings file.
type Settings struct {
	flags  *pflag.FlagSet
	stderr io.Writer
}

// Text is the value of a flag, "" when the verb has none of that name.
func (s Settings) Text(flag string) string {
	if f := s.flags.Lookup(flag); f != nil {
		return f.Value.String()
	}
	return ""
}

// On is the value of a switch.
func (s Settings) On(flag string) bool { return s.Text(flag) == "true" }

// Number is the value of a count.
func (s Settings) Number(flag string) int {
	n, err := strconv.Atoi(s.Text(flag))
	if err != nil {
		return 0
	}
	return n
}

// Span is the value of a duration.
func (s Settings) Span(flag string) time.Duration {
	d, err := s.flags.GetDuration(flag)
	if err != nil {
		return 0
	}
	return d
}

// List takes "a,b", a YAML list and repeated flags alike.
func (s Settings) List(flag string) []string {
	items, err := s.flags.GetStringSlice(flag)
	if err != nil {
		return nil
	}
	var out []string
	for _, item := range items {
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
	log, err := daemon.Logger(s.stderr, s.Text(LogLevel))
	if err != nil {
		return nil, UsageError{err}
	}
	return log, nil
}

// Stderr is where the process logs; writing there never waits.
func (s Settings) Stderr() io.Writer { return s.stderr }

// Metrics is a registry with the process's own figures, its log's included.
func (s Settings) Metrics() *prometheus.Registry {
	r := daemon.NewRegistry()
	if log, ok := s.stderr.(interface{ Dropped() uint64 }); ok {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "tollgate_log_dropped_lines_total", Help: "Lines that found no room because whoever reads standard error is too slow.",
		}, func() float64 { return float64(log.Dropped()) }))
	}
	return r
}

// Admin is where /healthz, /readyz, /metrics and the operator's API listen;
// with --free-ports any free port of loopback.
func (s Settings) Admin() string {
	if s.On(FreePorts) {
		return "127.0.0.1:0"
	}
	return s.Text(AdminAddress)
}
