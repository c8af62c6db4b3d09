// Package logpipe writes log lines without ever making their writer wait.
// Promise: Write returns at once whatever the sink does (a stalled reader, a
// full disk, a pipe nobody holds); lines come out whole and in order; memory is
// bounded; a line that found no room is dropped and counted, and the first
// thing that the sink takes after a gap is one line that says how many.
package logpipe

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// Limit is how many bytes wait for a slow sink unless a Writer is told
// otherwise: some 10,000 lines, or 20 s of the most that floods may log.
const Limit = 4 << 20

// Writer is an io.Writer for whole lines; one Write is one line, or several.
// It is safe for concurrent use.
type Writer struct {
	sink  io.Writer
	limit int
	wake  chan struct{}
	done  chan struct{}

	mu      sync.Mutex
	queue   []byte
	spare   []byte
	dropped uint64 // since the start
	told    uint64 // of these, what the sink was told
	closed  bool
}

// New returns a writer that keeps at most limit bytes for the sink, and as many
// again while the sink takes them.
func New(sink io.Writer, limit int) *Writer {
	w := &Writer{sink: sink, limit: limit, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run()
	return w
}

// Write takes p or drops it, at once. It never returns an error: who logs has
// nothing better to do about one.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	switch {
	case w.closed || len(w.queue)+len(p) > w.limit:
		w.dropped += lines(p)
	default:
		w.queue = append(w.queue, p...)
	}
	w.mu.Unlock()
	w.nudge()
	return len(p), nil
}

// Dropped is how many lines found no room since the start.
func (w *Writer) Dropped() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dropped
}

// Unwrap returns the sink, for those who ask whether it is a terminal.
func (w *Writer) Unwrap() io.Writer { return w.sink }

// Close takes no more lines and waits until the sink has what is queued, at
// most so long: a process that ends does not wait for a reader that stalls.
func (w *Writer) Close(within time.Duration) {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.nudge()
	select {
	case <-w.done:
	case <-time.After(within):
	}
}

func (w *Writer) nudge() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *Writer) run() {
	defer close(w.done)
	for range w.wake {
		for {
			batch, ended := w.take()
			if len(batch) == 0 {
				if ended {
					return
				}
				break
			}
			_, err := w.sink.Write(batch)
			w.give(batch, err)
		}
	}
}

// take swaps the queue for the empty spare, so that writers go on while the
// sink works.
func (w *Writer) take() (batch []byte, ended bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	batch = w.queue
	w.queue, w.spare = w.spare[:0], nil
	if gap := w.dropped - w.told; gap > 0 && !w.closed {
		batch = fmt.Appendf(batch, `{"time":%q,"level":"WARN","msg":"log lines dropped: whoever reads this log is too slow","dropped":%d,"total":%d}`+"\n",
			time.Now().UTC().Format(time.RFC3339Nano), gap, w.dropped)
		w.told = w.dropped
	}
	return batch, w.closed
}

func (w *Writer) give(batch []byte, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.spare = batch[:0]
	if err != nil {
		// Not told of, else a sink that is gone would be written to for ever.
		w.dropped += lines(batch)
		w.told = w.dropped
	}
}

func lines(p []byte) (n uint64) {
	for _, c := range p {
		if c == '\n' {
			n++
		}
	}
	return max(n, 1)
}
