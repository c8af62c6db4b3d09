// Package redistest starts real redis-servers for tests. Invariant: a test
// that needs Redis runs against one or fails; it is never skipped, because
// limits that were not tested are not limits.
package redistest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Server is a redis-server on a free loopback port, without persistence.
type Server struct {
	URL    string
	Client *redis.Client // for looking behind a store's back

	path   string
	port   string
	cmd    *exec.Cmd
	output output
}

// Start starts a server that ends with the test: TOLLGATE_REDIS_SERVER, or
// redis-server on PATH.
func Start(t testing.TB) *Server {
	t.Helper()
	path := os.Getenv("TOLLGATE_REDIS_SERVER")
	if path == "" {
		var err error
		if path, err = exec.LookPath("redis-server"); err != nil {
			t.Fatal("redis-server is not on PATH: install Redis 7 or set TOLLGATE_REDIS_SERVER")
		}
	}
	const tries = 5 // another process may take the port between our look and the server's bind
	for range tries {
		s := &Server{path: path, port: freePort(t)}
		if s.start(t) {
			s.URL = "redis://127.0.0.1:" + s.port
			t.Cleanup(func() {
				_ = s.Client.Close()
				s.Kill()
			})
			return s
		}
		t.Logf("redis-server on port %s does not come up: %s", s.port, s.output.String())
	}
	t.Fatalf("redis-server (%s) does not come up on any of %d ports", path, tries)
	return nil
}

// Restart starts a killed server again, empty, on the same port.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if !s.start(t) {
		t.Fatalf("redis-server does not come back: %s", s.output.String())
	}
}

// Kill ends the server at once; its counters are gone.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// Freeze makes the server hang, Thaw lets it go on.
func (s *Server) Freeze(t testing.TB) { s.signal(t, syscall.SIGSTOP) }

// Thaw ends Freeze.
func (s *Server) Thaw(t testing.TB) { s.signal(t, syscall.SIGCONT) }

func (s *Server) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) start(t testing.TB) bool {
	t.Helper()
	s.cmd = exec.Command(s.path, "--port", s.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir()) //nolint:noctx // it lives as long as the test; Kill ends it
	s.cmd.Stdout, s.cmd.Stderr = &s.output, &s.output
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", s.path, err)
	}
	for range 100 {
		if s.answers() {
			if s.Client == nil {
				s.Client = redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + s.port})
			}
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.Kill()
	return false
}

// answers asks without the client library, which would log every refusal.
func (s *Server) answers() bool {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "tcp", "127.0.0.1:"+s.port)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	reply := make([]byte, 5)
	_, _ = conn.Write([]byte("PING\r\n"))
	_, _ = conn.Read(reply)
	return string(reply) == "+PONG"
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}

// output is what the server prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write adds to the output.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

// String returns the output so far.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
