package verb

import (
	"context"
	"time"
)

// Await polls until ready returns nil; its error is that of the last try when
// ctx ends first.
func Await(ctx context.Context, ready func() error) error {
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(5 * time.Millisecond):
		}
	}
}
