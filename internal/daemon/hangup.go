package daemon

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// Hangup is SIGHUP taken as "read again", never as an end.
type Hangup struct{ caught chan os.Signal }

// CatchHangup takes SIGHUP from now on, so that one that comes while a process
// starts does not end it either.
func CatchHangup() *Hangup {
	h := &Hangup{caught: make(chan os.Signal, 1)}
	signal.Notify(h.caught, syscall.SIGHUP)
	return h
}

// Runner calls every reload after each SIGHUP, until ctx ends. It goes on
// catching then: a process that stops must not be ended by it halfway.
func (h *Hangup) Runner(log *slog.Logger, reload ...func(context.Context)) Runner {
	return RunnerFunc(func(ctx context.Context) error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-h.caught:
				log.Info("reloading as told by SIGHUP")
				for _, one := range reload {
					one(ctx)
				}
			}
		}
	})
}
