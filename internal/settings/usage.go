package settings

import (
	"errors"
	"fmt"
)

// UsageError is a wrong flag, variable or settings file: nothing was tried, and
// a shell sees exit code 2.
type UsageError struct{ error }

// Unwrap returns what is wrong.
func (e UsageError) Unwrap() error { return e.error }

// Usagef makes a UsageError.
func Usagef(format string, args ...any) error { return UsageError{fmt.Errorf(format, args...)} }

// usage makes the faults one UsageError; of none, nil.
func usage(faults []error) error {
	if len(faults) == 0 {
		return nil
	}
	return UsageError{errors.Join(faults...)}
}
