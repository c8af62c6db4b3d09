package daemon_test

import (
	"context"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"tollgate/internal/daemon"
)

// TestHangupReloadsAndNeverEnds: before the run group stands, while it runs and
// after it ended. Its default action would end this test's process.
func TestHangupReloadsAndNeverEnds(t *testing.T) {
	h := daemon.CatchHangup()
	hangup := func() {
		if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	hangup()
	reloads := make(chan string, 10)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- h.Runner(slog.New(slog.DiscardHandler),
			func(context.Context) { reloads <- "file" }, func(context.Context) { reloads <- "certificates" }).Run(ctx)
	}()
	for range 2 {
		for _, want := range []string{"file", "certificates"} {
			select {
			case got := <-reloads:
				if got != want {
					t.Errorf("%s, want %s", got, want)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("no reload")
			}
		}
		hangup()
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	hangup()
	time.Sleep(20 * time.Millisecond)
}
