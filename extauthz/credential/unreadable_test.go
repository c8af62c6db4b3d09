package credential_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tollgate/extauthz/credential"
)

const nobody = 65534

// asNobody runs do as one who may not read root's files; where we are not root, a
// file that nobody may read is the same.
func asNobody(t *testing.T, path string, do func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		_ = os.Chmod(path, 0)
		defer func() { _ = os.Chmod(path, 0o600) }()
		do()
		return
	}
	runtime.LockOSThread() // the identity is that of this thread alone
	defer runtime.UnlockOSThread()
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETFSUID, nobody, 0, 0); errno != 0 {
		t.Fatal(errno)
	}
	defer func() { _, _, _ = syscall.RawSyscall(syscall.SYS_SETFSUID, 0, 0, 0) }()
	do()
}

// TestUnreadableKeyFile: a file that could not be read, and whose size and times
// are still the same when it can, is read then; until then it is a fault.
func TestUnreadableKeyFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "open")
	path := filepath.Join(dir, "keys.yaml")
	if _, _, err := credential.CreateKey(path, credential.KeySpec{Tenant: "a"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	for d := dir; d != os.TempDir() && len(d) > 1; d = filepath.Dir(d) {
		_ = os.Chmod(d, 0o755) //nolint:gosec // who may not read the file may see it
	}
	told, faults := make(chan int, 16), make(chan error, 16)
	f := credential.NewKeyFile(slog.New(slog.DiscardHandler), func(k []credential.Key) { told <- len(k) }, func(why error) { faults <- why })
	asNobody(t, path, func() { f.Follow(path) })
	select {
	case why := <-faults:
		if why == nil || !strings.Contains(why.Error(), "permission denied") {
			t.Fatalf("the fault is %v", why)
		}
	default:
		t.Fatal("that it cannot be read is no fault")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	select {
	case n := <-told:
		if n != 1 || <-faults != nil {
			t.Errorf("%d keys", n)
		}
	case <-time.After(5 * time.Second):
		t.Error("it is not read again")
	}
	cancel()
	<-done
}

// lockedBuffer is a log that is written while it is read.
type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

// TestUnreadableKeyFileIsToldOnce: it is tried four times a second and logged
// once; the fault stays.
func TestUnreadableKeyFileIsToldOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a-file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var log lockedBuffer
	tries := make(chan error, 16)
	f := credential.NewKeyFile(slog.New(slog.NewTextHandler(&log, nil)), func([]credential.Key) { t.Error("keys from nowhere") }, func(why error) { tries <- why })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	f.Follow(filepath.Join(file, "keys.yaml"))
	go func() { done <- f.Run(ctx) }()
	for range 3 {
		if why := <-tries; why == nil {
			t.Error("no fault")
		}
	}
	cancel()
	<-done
	if n := strings.Count(log.String(), "key file is bad"); n != 1 {
		t.Errorf("logged %d times: %s", n, log.String())
	}
}

// TestKeyFileKeepsItsOwner: what root changes stays readable for whom it belongs to.
func TestKeyFileKeepsItsOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	key, _, err := credential.CreateKey(path, credential.KeySpec{Tenant: "a"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	owner := os.Geteuid()
	if owner == 0 {
		owner = nobody
		if err := os.Chown(path, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := credential.RevokeKey(path, key.ID, time.Now()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(stat.Uid) != owner || info.Mode().Perm() != 0o600 {
		t.Errorf("uid %d, mode %v; want %d, 0600", stat.Uid, info.Mode(), owner)
	}
}
