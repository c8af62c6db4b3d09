package envoy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate/internal/peer"
	"tollgate/internal/secretfile"
)

// SupervisorConfig is what a supervised proxy is started with.
type SupervisorConfig struct {
	Path        string       // the binary
	Dir         string       // where the bootstrap file is written, and WriteIdentity's are
	Bootstrap   Bootstrap    // its AdminAddress is set by Admin
	Admin       peer.Address // of the proxy's own admin; port 0: a free one
	Concurrency int          // workers; 0: one a core
	Output      io.Writer    // the proxy's log and access log; must not block
	LogLevel    string       // Envoy's words; "" means warning
	Log         *slog.Logger
	// DieWithParent ends the proxy when this process is killed. Otherwise it
	// serves on, and the next supervisor of Dir takes it over, its log too; what
	// it says in between is lost.
	DieWithParent bool
	Metrics       prometheus.Registerer // nil: none
}

// Supervisor keeps one Envoy running.
type Supervisor struct {
	cfg  SupervisorConfig
	args []string

	fingerprint string // of how the proxy is started
	lock        *os.File

	pid      atomic.Int64
	stopping atomic.Bool
	admin    *adminClient
	claim    *peer.Claim // of the admin's socket; nil: it has a port
}

// NewSupervisor settles the admin address, writes the bootstrap file and
// returns a supervisor that has not started the proxy yet.
func NewSupervisor(ctx context.Context, cfg SupervisorConfig) (_ *Supervisor, err error) {
	if cfg.DieWithParent {
		if err := alone(cfg.Dir); err != nil {
			return nil, err
		}
	}
	admin, claim, err := settleAdmin(ctx, cfg.Admin, !cfg.DieWithParent && HasLeft(cfg.Dir))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil && claim != nil {
			err = errors.Join(err, claim.Release())
		}
	}()
	cfg.Admin, cfg.Bootstrap.AdminAddress = admin, admin.String()
	bootstrap, err := cfg.Bootstrap.JSON()
	if err != nil {
		return nil, err
	}
	for _, path := range []*string{&cfg.Dir, &cfg.Path} {
		if *path, err = filepath.Abs(*path); err != nil {
			return nil, err
		}
	}
	file := filepath.Join(cfg.Dir, "envoy-bootstrap.json")
	if err := secretfile.Write(file, bootstrap, 0o600); err != nil {
		return nil, fmt.Errorf("envoy bootstrap: %w", err)
	}
	level := cfg.LogLevel
	if level == "" {
		level = "warning"
	}
	args := []string{
		"--config-path", file, "--disable-hot-restart", "--file-flush-interval-msec", "500", "--drain-time-s", "2", "--drain-strategy", "immediate",
		// The body-size filter logs every refusal as an error of its own.
		"--log-level", level, "--component-log-level", "filter:critical",
		// Into a file, Envoy writes its own log as the access log: never on a worker.
		"--log-path", filepath.Join(cfg.Dir, logFIFO),
		"--log-format", `{"time":"%Y-%m-%dT%T.%eZ","level":"%l","component":"envoy","logger":"%n","msg":"%j"}`,
	}
	if cfg.Concurrency > 0 {
		args = append(args, "--concurrency", strconv.Itoa(cfg.Concurrency))
	}
	s := &Supervisor{cfg: cfg, args: args, admin: newAdminClient(admin), claim: claim}
	if cfg.DieWithParent {
		return s, nil
	}
	if s.fingerprint, err = fingerprint(cfg.Path, args, bootstrap); err != nil {
		return nil, err
	}
	s.lock, err = lockFolder(cfg.Dir)
	return s, err
}

// lockFolder makes this the only supervisor of a folder: a second one would take
// a proxy over that has a supervisor.
func lockFolder(dir string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(dir, "envoy.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another tollgate runs an envoy from %s: stop it, or choose another --data-dir", dir), lock.Close())
	}
	return lock, nil
}

// Admin is where the proxy's own admin listens.
func (s *Supervisor) Admin() peer.Address { return s.cfg.Admin }

// PID is the running proxy's, or 0.
func (s *Supervisor) PID() int { return int(s.pid.Load()) }

// Run keeps the proxy alive until ctx ends, restarting it with a back-off of
// 100 ms to 5 s. When ctx ends without Stop, the proxy is ended at once.
func (s *Supervisor) Run(ctx context.Context) error {
	// Pdeathsig is sent when the thread that forked ends, not the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if s.claim != nil {
		defer func() { _ = s.claim.Release() }()
	}
	if s.lock != nil {
		defer func() { _ = s.lock.Close() }()
	}
	output, err := openLog(s.cfg.Dir, s.cfg.Output, s.cfg.Log)
	if err != nil {
		return err
	}
	defer output.close()
	if err := output.register(s.cfg.Metrics); err != nil {
		return err
	}
	const shortest, longest = 100 * time.Millisecond, 5 * time.Second
	backoff := shortest
	for {
		started := time.Now()
		var err error
		if s.cfg.DieWithParent || !s.adopt(ctx) {
			err = s.once(ctx, output)
		}
		if ctx.Err() != nil || s.stopping.Load() {
			return nil
		}
		if time.Since(started) > 30*time.Second {
			backoff = shortest
		}
		s.cfg.Log.Error("envoy ended, starting it again", "err", err, "dur", backoff)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, longest)
	}
}

func (s *Supervisor) once(ctx context.Context, output *logPipe) error {
	end, err := output.proxyEnd()
	if err != nil {
		return err
	}
	defer func() { _ = end.Close() }()
	cmd := exec.CommandContext(ctx, s.cfg.Path, s.args...)
	cmd.Stdout, cmd.Stderr = end, end
	if s.cfg.Bootstrap.TrustDomain != "" {
		cmd.Dir = s.cfg.Dir // where its identity is
	}
	// Its own process group: Ctrl-C must reach the supervisor alone, which drains.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if s.cfg.DieWithParent {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := unblock(end); err != nil {
		s.cfg.Log.Warn("the proxy's log may make it wait", "err", err)
	}
	s.pid.Store(int64(cmd.Process.Pid))
	defer s.pid.Store(0)
	if !s.cfg.DieWithParent {
		if err := keep(s.cfg.Dir, cmd.Process.Pid, s.cfg.Bootstrap.AdminAddress, s.fingerprint); err != nil {
			s.cfg.Log.Warn("the next start will not know this proxy", "err", err)
		}
	}
	if err := cmd.Wait(); err != nil {
		return err
	}
	return errors.New("exit status 0")
}

// Ready returns nil when the proxy is live and serves at least want listeners.
func (s *Supervisor) Ready(ctx context.Context, want int) error {
	if err := s.admin.live(ctx); err != nil {
		return err
	}
	got, err := s.admin.listeners(ctx)
	if err != nil {
		return err
	}
	if got < want {
		return fmt.Errorf("envoy serves %d of %d listeners", got, want)
	}
	return nil
}

// Serves returns nil when each of these clusters has at least so many hosts
// that take requests.
func (s *Supervisor) Serves(ctx context.Context, want map[string]int) error {
	got, err := s.admin.hosts(ctx)
	if err != nil {
		return err
	}
	for cluster, n := range want {
		if got[cluster] < n {
			return fmt.Errorf("envoy sends requests to %d of %d instances of upstream %s", got[cluster], n, cluster)
		}
	}
	return nil
}

// Reload has the proxy open its log files again, so that a rotated one is let go.
func (s *Supervisor) Reload(ctx context.Context) {
	if err := s.admin.reopenLogs(ctx); err != nil {
		s.cfg.Log.Warn("envoy did not open its logs again", "err", err)
	}
}
