package files

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// An editor saves in several steps (write, rename, chmod): quiet is how long a
// burst must have ended, atMost how long it may hold a change back, and poll
// catches what the kernel did not tell (network mounts, swapped links): often, but
// of so many files that a look takes long, only so often that looking takes one
// part in share of the time.
const (
	quiet   = 15 * time.Millisecond
	atMost  = 300 * time.Millisecond
	poll    = time.Second
	share   = 500
	slowest = 10 * time.Second
)

// Watch sends on changed once at its start, so that nothing is lost between a
// reading and the watch, and after every change of the set's files or of the
// files that the last reading was asked for, until ctx ends. Folders are watched,
// not files, because a rename over a file ends a watch on it.
func (s *Set) Watch(ctx context.Context, changed chan<- struct{}, log *slog.Logger) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching the gateway file: %w", err)
	}
	defer func() { _ = watcher.Close() }()
	w := &watch{set: s, watcher: watcher, folders: map[string]bool{}, log: log}
	last := &look{err: errors.New("nothing was looked at")} // like no look: it is told at once
	settle := time.NewTimer(0)
	defer settle.Stop()
	next := time.NewTimer(poll)
	defer next.Stop()
	var first time.Time // of the burst under way; zero: none
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-watcher.Errors:
			log.Warn("watching files failed, polling goes on", "err", err)
			continue
		case <-watcher.Events:
			if first.IsZero() {
				first = time.Now()
			}
			settle.Reset(min(quiet, max(0, atMost-time.Since(first))))
			continue
		case <-settle.C:
			first = time.Time{}
		case <-next.C:
		}
		start := time.Now()
		now := w.look()
		next.Reset(min(max(poll, share*time.Since(start)), slowest))
		if !now.same(last) {
			last = now
			s.mu.Lock()
			s.seen = now
			s.mu.Unlock()
			select {
			case changed <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
		}
	}
}

type watch struct {
	set     *Set
	watcher *fsnotify.Watcher
	folders map[string]bool
	log     *slog.Logger
}

// look looks at all watched files; it also starts watching folders that were not
// known before.
func (w *watch) look() *look {
	l := w.set.look()
	for _, path := range w.set.paths {
		if isFolder(path) {
			w.folder(path)
		}
	}
	for _, one := range l.names {
		w.folder(filepath.Dir(one.path))
	}
	for _, path := range l.referenced {
		w.folder(filepath.Dir(path))
	}
	return l
}

func (w *watch) folder(path string) {
	if w.folders[path] {
		return
	}
	if err := w.watcher.Add(path); err != nil {
		w.log.Debug("folder cannot be watched, it is polled", "err", err)
		return
	}
	w.folders[path] = true
}
