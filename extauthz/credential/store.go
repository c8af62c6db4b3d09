package credential

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"
)

const pollKeys = 250 * time.Millisecond

// KeyFile follows a key file. A file that turns bad keeps the keys it had; one
// that is missing holds no keys.
type KeyFile struct {
	log     *slog.Logger
	changed func(keys []Key)
	failed  func(why error)

	mu   sync.Mutex
	path string
	seen os.FileInfo
	read bool
	told string // why it could not be read, as it was logged
}

// NewKeyFile returns a follower that tells changed of every new content and
// failed why the file is bad now; nil: it is not.
func NewKeyFile(log *slog.Logger, changed func([]Key), failed func(why error)) *KeyFile {
	return &KeyFile{log: log, changed: changed, failed: failed}
}

// Follow turns to another file and reads it before it returns.
func (f *KeyFile) Follow(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if path == f.path {
		return
	}
	f.path, f.seen, f.read = path, nil, false
	f.poll()
}

// Run looks for changes until ctx ends. It polls, since a watch on a file that
// is replaced by rename, or that does not exist yet, is easily lost.
func (f *KeyFile) Run(ctx context.Context) error {
	tick := time.NewTicker(pollKeys)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			f.mu.Lock()
			f.poll()
			f.mu.Unlock()
		}
	}
}

func (f *KeyFile) poll() {
	if f.path == "" {
		return
	}
	info, err := os.Stat(f.path)
	if err != nil {
		info = nil
	}
	if f.read && same(f.seen, info) {
		return
	}
	f.seen, f.read = info, true
	if errors.Is(err, fs.ErrNotExist) {
		f.changed(nil)
		f.failed(nil)
		f.log.Warn("key file is missing, so it holds no keys yet", "component", "extauthz", "resource", f.path)
		return
	}
	// What the file says counts before anything is written about it: a log that
	// nobody reads must not hold up a revocation.
	keys, err := readKeys(f.path)
	if err != nil {
		f.failed(err)
		// That a file can be read again does not show in its size and times.
		var unreadable *fs.PathError
		f.read = !errors.As(err, &unreadable)
		if f.read || err.Error() != f.told {
			f.log.Error("key file is bad, the last good keys stay", "component", "extauthz", "resource", f.path, "err", err)
		}
		f.told = err.Error()
		return
	}
	f.told = ""
	f.changed(keys)
	f.failed(nil)
	f.log.Info("key file read", "component", "extauthz", "resource", f.path)
}

func same(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
