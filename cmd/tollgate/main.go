// Command tollgate is the whole gateway in one binary: `tollgate run` starts
// everything on this machine, the other verbs start one role, ask a running one
// or look at a file.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"tollgate/cmd/tollgate/fleet"
	"tollgate/cmd/tollgate/keys"
	"tollgate/cmd/tollgate/operator"
	"tollgate/cmd/tollgate/service"
	"tollgate/cmd/tollgate/verb"
	"tollgate/internal/logpipe"
	"tollgate/internal/settings"
)

// Exit codes: what was asked is done, was refused or failed, or was not
// understood.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	log := logpipe.New(os.Stderr, logpipe.Limit)
	code := run(ctx, os.Args[1:], os.Stdout, log)
	stop()
	log.Close(time.Second)
	os.Exit(code)
}

// rootCommand is the whole command line.
func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "tollgate",
		Short:         "Envoy as a complete API gateway: one file, one binary, one command",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.Version = version()
	root.SetVersionTemplate("{{.Version}}\n")
	root.CompletionOptions.DisableDefaultCmd = true
	settings.Persistent(root.PersistentFlags())
	root.AddCommand(
		runVerb(), xdsVerb(), extauthzVerb(), ratelimitVerb(), service.Command(),
		versionVerb(), validateVerb(), operator.Status(), operator.Resend(), operator.AllowShrink(), operator.Ready(), keys.Command(), registryTokenVerb(), envoyVerb(), fleet.RunAgent(), fleet.JoinToken(), fleet.Members(), fleet.CA(),
	)
	return root
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var failed verb.Failure
	var usage settings.UsageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &failed):
		if text := failed.Error(); text != "" {
			fmt.Fprintln(stderr, text)
		}
		return exitFailed
	case errors.As(err, &usage):
		fmt.Fprintln(stderr, err)
	default:
		fmt.Fprintf(stderr, "%v\nsee `%s --help`\n", err, cmd.CommandPath())
	}
	return exitUsage
}
