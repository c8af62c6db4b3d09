package files

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// An editor saves in several steps (write, rename, chmod): quiet is how long a
// burst must have ended, atMost how long it may hold a change back, and poll
// catches what the kernel did not tell (network mounts, swapped links).
const (
	quiet  = 15 * time.Millisecond
	atMost = 300 * time.Millisecond
	poll   = time.Second
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
	last := "" // like no state: it is told at once
	settle := time.NewTimer(0)
	defer settle.Stop()
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
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
		case <-ticker.C:
		}
		if now := w.state(); now != last {
			last = now
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

// state is a fingerprint of all watched files; it also starts watching
// folders that were not known before.
func (w *watch) state() string {
	found, err := w.set.names()
	if err != nil {
		return err.Error()
	}
	paths := w.set.referenced()
	for _, one := range found {
		paths = append(paths, one.path)
	}
	for _, path := range w.set.paths {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			w.folder(path)
		}
	}
	var out strings.Builder
	for _, path := range paths {
		w.folder(filepath.Dir(path))
		info, err := os.Stat(path)
		if err != nil {
			fmt.Fprintf(&out, "%s gone\n", path)
			continue
		}
		fmt.Fprintf(&out, "%s %d %d %v\n", path, info.Size(), info.ModTime().UnixNano(), inode(info))
	}
	return out.String()
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
