package envoy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"tollgate/internal/clientrate"
)

const (
	logFIFO    = "envoy-log.fifo"
	logBuffer  = 1 << 20 // bytes that wait in the kernel: what an unprivileged process may ask for
	longestLog = 64 << 10
)

// logPipe takes the proxy's log and access log from a FIFO that has a name, so
// that they come again after this process was replaced while the proxy lived
// on. Promise: the proxy never waits for us and never dies of us. The end that
// it inherits does not block: while we stall, or while nobody reads at all,
// lines of the access log that do not fit are lost and counted by Envoy
// (filesystem.write_failed; seen on 1.40 at 25,000 lines a second, without
// growth of its memory). Its own log it opens by name and keeps in memory while
// we stall; on standard error one full pipe would silence that for good.
//
// Denials are sampled (clientrate.Sampler); everything else is handed on.
type logPipe struct {
	path    string
	fifo    *os.File
	out     io.Writer
	log     *slog.Logger
	sampler clientrate.Sampler
	torn    atomic.Uint64
	done    chan struct{}
}

// openLog makes the FIFO, or takes the one that is there, and reads from it.
func openLog(dir string, out io.Writer, log *slog.Logger) (*logPipe, error) {
	l := &logPipe{path: filepath.Join(dir, logFIFO), out: out, log: log, done: make(chan struct{})}
	info, err := os.Lstat(l.path)
	switch {
	case err == nil && info.Mode().Type() != fs.ModeNamedPipe:
		return nil, fmt.Errorf("the proxy's log: %s is no FIFO: remove it, or choose another --data-dir", l.path)
	case errors.Is(err, fs.ErrNotExist):
		err = unix.Mkfifo(l.path, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("the proxy's log: make the FIFO %s: %w", l.path, err)
	}
	// Both ways: with a writer of our own it never ends while we live.
	if l.fifo, err = os.OpenFile(l.path, os.O_RDWR|unix.O_NONBLOCK, 0); err != nil {
		return nil, fmt.Errorf("the proxy's log: %w", err)
	}
	if conn, err := l.fifo.SyscallConn(); err == nil {
		// A smaller buffer loses lines sooner, nothing else.
		_ = conn.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, logBuffer) })
	}
	go l.read()
	return l, nil
}

// proxyEnd is a descriptor for the proxy to write to. After the proxy has
// started, unblock makes its writes return at once.
func (l *logPipe) proxyEnd() (*os.File, error) {
	return os.OpenFile(l.path, os.O_WRONLY, 0)
}

func unblock(end *os.File) error {
	return unix.SetNonblock(int(end.Fd()), true)
}

// close hands on what the proxy has written and ends.
func (l *logPipe) close() {
	_ = l.fifo.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	<-l.done
	_ = l.fifo.Close()
}

func (l *logPipe) read() {
	defer close(l.done)
	in := bufio.NewReaderSize(l.fifo, longestLog)
	for {
		line, err := in.ReadSlice('\n')
		switch {
		case err == nil:
			l.line(line, time.Now())
		case errors.Is(err, bufio.ErrBufferFull):
			l.torn.Add(1)
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = in.ReadSlice('\n')
			}
		default:
			return // closed, or the deadline of close
		}
	}
}

func (l *logPipe) line(line []byte, now time.Time) {
	text := bytes.TrimSuffix(line, []byte("\n"))
	if client, denied := denial(text); denied {
		take, past := l.sampler.Take(clientrate.Client(client), now)
		if past.Left > 0 {
			l.log.Info("denials not written to the access log", "count", past.Left, "worst_client", past.Worst.String(), "worst_count", past.Count)
		}
		if !take {
			return
		}
	}
	// What is lost in a full pipe may take half a line with it. What does not
	// look like JSON at all is the proxy's last words.
	if object := bytes.HasPrefix(text, []byte("{")); (object || bytes.HasSuffix(text, []byte("}"))) && !json.Valid(text) {
		l.torn.Add(1)
		return
	}
	_, _ = l.out.Write(line)
}

// denial tells whether a line of the access log is about a request that was
// refused for what the client did: a status of 400 to 499, or none at all. No
// client can forge the names: a quote inside of a value is escaped.
func denial(line []byte) (client string, denied bool) {
	status, ok := after(line, `"status":`)
	if !ok {
		return "", false
	}
	n, err := strconv.Atoi(string(status))
	if err != nil || n != 0 && (n < 400 || n > 499) {
		return "", false
	}
	address, _ := after(line, `"client":`)
	return string(bytes.Trim(address, `"`)), true
}

func after(line []byte, name string) ([]byte, bool) {
	_, rest, ok := bytes.Cut(line, []byte(name))
	if !ok {
		return nil, false
	}
	end := bytes.IndexAny(rest, ",}")
	if end < 0 {
		return nil, false
	}
	return rest[:end], true
}

func (l *logPipe) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	count := func(name, help string, value func() uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
	}
	for _, c := range []prometheus.Collector{
		count("tollgate_access_log_sampled_out_total", "Denials that were not written to the access log, being beyond what a client or all of them may fill.", l.sampler.Left),
		count("tollgate_access_log_torn_total", "Lines of the proxy that lost a part because this process was too slow.", l.torn.Load),
	} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}
