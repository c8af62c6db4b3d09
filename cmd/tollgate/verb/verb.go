// Package verb is what every command of the tollgate binary shares: how its
// errors become exit codes. Invariant: an error of a verb that was understood is
// told from one of usage by its type, never by its text.
package verb

import "github.com/spf13/cobra"

// Failure is an error of a verb that was understood (exit 1); any other is of
// usage (exit 2).
type Failure struct{ error }

// Unwrap returns what failed.
func (f Failure) Unwrap() error { return f.error }

// Do wraps what a command does, so that its errors are Failures.
func Do(do func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := do(cmd, args); err != nil {
			return Failure{err}
		}
		return nil
	}
}
