package envoy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"tollgate/internal/peer"
)

// lookEvery is how soon the end of a proxy that is not our child is noticed.
const lookEvery = 100 * time.Millisecond

// adoptTries are how often a proxy that was left is asked whether it lives.
const adoptTries = 10

// left is what a supervisor writes down of the proxy that it started, so that
// the next one finds it after a kill -9. A process is known by its id and the
// moment of its start: ids come again.
type left struct {
	PID         int    `json:"pid"`
	Started     string `json:"started"` // clock ticks after boot
	Admin       string `json:"admin"`
	Fingerprint string `json:"fingerprint"` // of binary, arguments and bootstrap

	fd int // of the process (pidfd)
}

func leftFile(dir string) string { return filepath.Join(dir, "envoy.json") }

// HasLeft says whether a proxy of this folder serves without a supervisor: its
// addresses are taken, and rightly so.
func HasLeft(dir string) bool {
	l, err := readLeft(dir)
	if l != nil {
		l.close()
	}
	return err == nil && l != nil
}

// alone refuses a folder in which a proxy was left: one that shall end with its
// parent takes over none, and must not end that one unasked.
func alone(dir string) error {
	l, err := readLeft(dir)
	if l == nil || err != nil {
		return nil //nolint:nilerr // what cannot be read is told by who takes over
	}
	l.close()
	return fmt.Errorf("an envoy (process %d) that an earlier run left in %s still serves: start without --demo and --free-ports, which takes it over, or end it (kill %d), or choose another --data-dir", l.PID, dir, l.PID)
}

// readLeft returns the live proxy that the folder tells of, or nil.
func readLeft(dir string) (*left, error) {
	data, err := os.ReadFile(leftFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var l left
	if err := json.Unmarshal(data, &l); err != nil || l.PID <= 1 {
		return nil, fmt.Errorf("%s is not what a supervisor wrote: %w", leftFile(dir), err)
	}
	// The descriptor first: what started tells is then told of this very process.
	if l.fd, err = unix.PidfdOpen(l.PID, 0); err != nil {
		return nil, nil //nolint:nilerr // gone
	}
	if at, err := startedAt(l.PID); err != nil || at != l.Started || l.ended(0) {
		l.close()
		return nil, nil //nolint:nilerr // gone, and its id is another's
	}
	return &l, nil
}

// keep writes down a proxy that has just started.
func keep(dir string, pid int, admin, fingerprint string) error {
	at, err := startedAt(pid)
	if err != nil {
		return err
	}
	data, err := json.Marshal(left{PID: pid, Started: at, Admin: admin, Fingerprint: fingerprint})
	if err != nil {
		return err
	}
	return renameio.WriteFile(leftFile(dir), data, 0o600)
}

// startedAt is the 22nd field of a process's stat; its name, the second, may
// hold anything, so fields are counted from its end.
func startedAt(pid int) (string, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", err
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 20 {
		return "", fmt.Errorf("process %d: %d fields in its stat", pid, len(fields))
	}
	return fields[19], nil
}

// fingerprint tells one way to start a proxy from another.
func fingerprint(binary string, args []string, bootstrap []byte) (string, error) {
	info, err := os.Stat(binary)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%d\n%d\n%q\n", binary, info.Size(), info.ModTime().UnixNano(), args)
	h.Write(bootstrap)
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (l *left) close() { _ = unix.Close(l.fd) }

// ended waits at most so long for the end of the process.
func (l *left) ended(within time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(within.Milliseconds()))
	return err == nil && n > 0
}

// signal reaches this process or none.
func (l *left) signal(s syscall.Signal) { _ = unix.PidfdSendSignal(l.fd, s, nil, 0) }

// adopt takes over the proxy that a killed supervisor left, and returns when it
// has ended; false: there was none to take over. One that was started in another
// way is drained and ended, so that its successor may be started.
func (s *Supervisor) adopt(ctx context.Context) bool {
	l, err := readLeft(s.cfg.Dir)
	if err != nil {
		s.cfg.Log.Warn("a proxy that may be left cannot be known", "err", err)
	}
	if l == nil {
		return false
	}
	defer l.close()
	s.pid.Store(int64(l.PID))
	defer s.pid.Store(0)
	address, err := peer.Parse(l.Admin)
	if err != nil {
		s.cfg.Log.Warn("the admin of the proxy that was left cannot be known", "err", err)
	}
	old := newAdminClient(address)
	if l.Fingerprint != s.fingerprint || !answers(ctx, old) {
		s.cfg.Log.Info("the proxy that was left is replaced", "node", l.PID)
		s.replace(ctx, l, old)
		return false
	}
	s.cfg.Log.Info("the proxy that was left is taken over", "node", l.PID)
	for !l.ended(lookEvery) {
		if ctx.Err() != nil {
			l.signal(syscall.SIGTERM)
			if !l.ended(time.Second) {
				l.signal(syscall.SIGKILL)
				l.ended(time.Second)
			}
		}
	}
	return true
}

// replace drains a proxy and ends it.
func (s *Supervisor) replace(ctx context.Context, l *left, admin *adminClient) {
	if err := admin.drain(ctx); err == nil {
		for deadline := time.Now().Add(drainWait); time.Now().Before(deadline) && ctx.Err() == nil; {
			if l.ended(lookEvery) {
				return
			}
		}
	}
	l.signal(syscall.SIGTERM)
	if !l.ended(acceptedIn) {
		l.signal(syscall.SIGKILL)
		l.ended(time.Second)
	}
}

// answers asks a proxy several times before it is given up: a scrape of many
// clusters keeps its main thread busy for seconds while it serves.
func answers(ctx context.Context, proxy *adminClient) bool {
	for range adoptTries {
		if _, err := proxy.do(ctx, "GET", "/server_info"); err == nil {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(lookEvery):
		}
	}
	return false
}
