package main

import (
	"cmp"
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"

	"tollgate/envoy"
)

func versionVerb() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Tell which tollgate this is; also --version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version())
			return err
		},
	}
}

// version is what the build noted of itself: a build from a checkout has a
// commit, one of the module a version.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "tollgate, built without its version"
	}
	noted := map[string]string{}
	for _, s := range info.Settings {
		noted[s.Key] = s.Value
	}
	commit := ""
	if noted["vcs.revision"] != "" {
		commit = fmt.Sprintf(", commit %.12s of %s", noted["vcs.revision"], noted["vcs.time"])
	}
	if noted["vcs.modified"] == "true" {
		commit += ", changed since"
	}
	return fmt.Sprintf("tollgate %s%s, %s, for Envoy %s", cmp.Or(info.Main.Version, "(devel)"), commit, info.GoVersion, envoy.MinVersion)
}
