// Package daemon is what every long-lived process of Tollgate shares: the run
// group, the logger, and the admin address with /healthz, /readyz and /metrics.
// Invariant: a listener is bound before anything is served, so a taken port is
// an error at start, never a log line of a process that lives on deaf.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/term"
)

// Runner lives until its context ends and returns nil then; any other return
// stops its group.
type Runner interface {
	Run(ctx context.Context) error
}

// RunnerFunc makes a function a Runner.
type RunnerFunc func(ctx context.Context) error

// Run calls f.
func (f RunnerFunc) Run(ctx context.Context) error { return f(ctx) }

// Run runs all until ctx ends or the first of them fails, and waits for all.
func Run(ctx context.Context, runners ...Runner) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, r := range runners {
		group.Go(func() error { return r.Run(ctx) })
	}
	return group.Wait()
}

// Logger returns the process's logger: text on a terminal, JSON elsewhere.
// Levels: debug, info, warn, error. From here on the process survives whoever
// reads its log and leaves.
func Logger(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: write debug, info, warn or error", level)
	}
	// The runtime would end us at the next line into a pipe that nobody holds.
	signal.Ignore(syscall.SIGPIPE)
	options := &slog.HandlerOptions{Level: l}
	if Terminal(w) {
		return slog.New(slog.NewTextHandler(w, options)), nil
	}
	return slog.New(slog.NewJSONHandler(w, options)), nil
}

// Terminal reports whether somebody looks at w, or at what w writes to.
func Terminal(w io.Writer) bool {
	if wrapped, ok := w.(interface{ Unwrap() io.Writer }); ok {
		w = wrapped.Unwrap()
	}
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Listen binds a TCP address; where says which setting it comes from, such as
// "--xds-address", so that a taken port names its cure.
func Listen(ctx context.Context, address, where string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s %s: the port is taken by another process: stop it, choose another address there, or let --free-ports choose", where, address)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", where, address, err)
	}
	return l, nil
}

// Loopback reports whether an address can only be reached from this machine.
// An empty host means every interface, so it is not.
func Loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
