package store_test

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
	"github.com/redis/go-redis/v9/logging"
)

// redisServer is a real redis-server of one test.
type redisServer struct {
	URL    string
	Client *redis.Client // for looking behind the store's back
	path   string
	port   string
	cmd    *exec.Cmd
	output *syncBuffer
}

// startRedis starts a server on a free port. It fails, never skips, when there
// is no redis-server: untested limits are not limits.
func startRedis(t testing.TB) *redisServer {
	t.Helper()
	redis.SetLogger(&logging.VoidLogger{})
	path := os.Getenv("TOLLGATE_REDIS_SERVER")
	if path == "" {
		var err error
		if path, err = exec.LookPath("redis-server"); err != nil {
			t.Fatal("redis-server is not on PATH: install Redis 7 or set TOLLGATE_REDIS_SERVER")
		}
	}
	var s *redisServer
	for try := range 5 { // another process may take the port between our look and the server's bind
		s = &redisServer{path: path, port: freePort(t), output: &syncBuffer{}}
		s.URL = "redis://127.0.0.1:" + s.port
		s.Client = redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + s.port, MaxRetries: -1, DialerRetries: 1})
		if s.start(t) {
			break
		}
		s.Client.Close()
		if try == 4 {
			t.Fatalf("redis-server does not come up: %s", s.output)
		}
	}
	t.Cleanup(func() {
		s.Client.Close()
		s.stop()
	})
	return s
}

func (s *redisServer) start(t testing.TB) bool {
	t.Helper()
	s.cmd = exec.Command(s.path, "--port", s.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir())
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", s.path, err)
	}
	for range 100 {
		if s.Client.Ping(context.Background()).Err() == nil {
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.stop()
	return false
}

// stop kills the server; its counters are gone.
func (s *redisServer) stop() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

func (s *redisServer) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
