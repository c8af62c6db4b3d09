// Package verb is what every command of the tollgate binary shares: how its
// errors become exit codes. Invariant: an error of a verb that was understood is
// told from one of usage by its type, never by its text.
package verb

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"tollgate/internal/settings"
)

// Failure is an error of a verb that was understood (exit 1); any other, such
// as a settings.UsageError, is of usage (exit 2).
type Failure struct{ error }

// Unwrap returns what failed.
func (f Failure) Unwrap() error { return f.error }

// Failed makes an error a Failure.
func Failed(err error) Failure { return Failure{err} }

// Do wraps what a command does, so that its errors are Failures.
func Do(do func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := do(cmd, args)
		var usage settings.UsageError
		if err == nil || errors.As(err, &usage) {
			return err
		}
		return Failure{err}
	}
}

// FileByFlag refuses arguments: a gateway file is named with -f.
func FileByFlag(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return settings.Usagef("`%s` takes no %q: name the gateway file with a flag: %s -f %s", cmd.CommandPath(), args[0], cmd.CommandPath(), args[0])
}

// Printable escapes what would move a terminal's cursor or add a row.
func Printable(text string) string {
	if strings.IndexFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) < 0 {
		return text
	}
	return strings.Trim(strconv.Quote(text), `"`)
}

// Parent makes a command that only holds others refuse what is none of them,
// where cobra would print help and call it a success.
func Parent(cmd *cobra.Command, children ...*cobra.Command) *cobra.Command {
	cmd.AddCommand(children...)
	cmd.SuggestionsMinimumDistance = 2
	// A mistyped verb with the flags of the right one is a mistyped verb.
	cmd.FParseErrWhitelist.UnknownFlags = true
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var names []string
		for _, child := range cmd.Commands() {
			if child.Name() != "help" && !child.Hidden {
				names = append(names, child.Name())
			}
		}
		if len(args) == 0 {
			return settings.Usagef("`%s` needs one of: %s", cmd.CommandPath(), strings.Join(names, ", "))
		}
		hint := ""
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			hint = fmt.Sprintf("; did you mean %q?", near[0])
		}
		return settings.Usagef("`%s` has no %q%s: it has %s", cmd.CommandPath(), args[0], hint, strings.Join(names, ", "))
	}
	return cmd
}
