package settings

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tollgate/api/contract"
	"tollgate/internal/strictyaml"
)

// also are variables of ours that are no flag: which programs and secrets to use.
func also() []string {
	return []string{"TOLLGATE_ENVOY", "TOLLGATE_REDIS_SERVER", "TOLLGATE_BIN", "TOLLGATE_ADMIN_TOKEN", "TOLLGATE_CHECK_BENCH_SERVER"}
}

// names are the flags of every verb below root: what one verb does not have,
// another of the same machine may.
func names(root *cobra.Command) []string {
	var out []string
	var walk func(*cobra.Command)
	keep := func(f *pflag.Flag) {
		if f.Name != "help" && f.Name != "version" {
			out = append(out, f.Name)
		}
	}
	walk = func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(keep)
		cmd.PersistentFlags().VisitAll(keep)
		for _, child := range cmd.Commands() {
			walk(child)
		}
	}
	walk(root)
	slices.Sort(out)
	return slices.Compact(out)
}

// variables are those that set a flag, the strongest first.
func variables(flag string) []string {
	own := "TOLLGATE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
	if flag == EnvoyPath {
		return []string{own, "TOLLGATE_ENVOY"}
	}
	return []string{own}
}

// strangers are the variables that look like ours and are not: a mistyped one
// would be ignored, and the default would act instead.
func strangers(environ, flags []string) []error {
	const prefix = "TOLLGATE_"
	known := also()
	for _, flag := range flags {
		known = append(known, variables(flag)...)
	}
	stems := make([]string, len(known))
	for i, name := range known {
		stems[i] = strings.TrimPrefix(name, prefix)
	}
	linked := regexp.MustCompile(`_SERVICE_HOST$|_SERVICE_PORT(_|$)|_PORT_\d+_(TCP|UDP)`)
	var faults []error
	for _, variable := range slices.Sorted(slices.Values(environ)) {
		name, value, _ := strings.Cut(variable, "=")
		switch {
		case !strings.HasPrefix(name, prefix), slices.Contains(known, name), strings.HasPrefix(name, "TOLLGATE_TEST_"):
		case linked.MatchString(name), strings.HasPrefix(value, "tcp://"):
			// An orchestrator describes a service named tollgate.
		default:
			hint := ""
			if near := strictyaml.Nearest(strings.TrimPrefix(name, prefix), stems); near != "" {
				hint = fmt.Sprintf("; did you mean %q?", prefix+near)
			}
			faults = append(faults, fmt.Errorf("the environment variable %s is no setting%s", name, hint))
		}
	}
	return faults
}

// addresses are the faults of every flag that names one or a list of them.
func (s Settings) addresses() []error {
	var faults []error
	s.flags.VisitAll(func(f *pflag.Flag) {
		var written []string
		switch {
		case strings.HasSuffix(f.Name, "-servers"), f.Value.Type() == "stringSlice" && f.Name == AdminAddress:
			written = s.List(f.Name)
		case strings.HasSuffix(f.Name, "-address") && f.Value.String() != "":
			written = []string{f.Value.String()}
		}
		for _, address := range written {
			if err := wellFormed(address); err != nil {
				faults = append(faults, fmt.Errorf("--%s %q: %w", f.Name, address, err))
			}
		}
	})
	return faults
}

func wellFormed(address string) error {
	if path, socket := strings.CutPrefix(address, contract.SocketPrefix); socket && path != "" {
		return nil
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return errors.New("write host:port or unix:PATH")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("the port is a number from 0 to 65535, not %q", port)
	}
	return nil
}
