package peer_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"tollgate/internal/peer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// nobody is a user who is neither root nor us.
const nobody = 65534

// asNobody runs f on a thread of another user: the kernel knows users by
// thread, and forgets this one with it.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test becomes another user: run it as root")
	}
	var wg sync.WaitGroup
	var failed syscall.Errno
	wg.Go(func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if _, _, failed = syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), nobody, ^uintptr(0)); failed == 0 {
			f()
		}
	})
	wg.Wait()
	if failed != 0 {
		t.Fatalf("setresuid: %v", failed)
	}
}

// open returns a folder that every user may enter, with a short name.
func open(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "peer-") //nolint:usetesting // that one's parent is closed to other users, and its name is long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil { //nolint:gosec // other users are what is tested
		t.Fatal(err)
	}
	return dir
}

func at(t *testing.T, text string) peer.Address {
	t.Helper()
	a, err := peer.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func listen(t *testing.T, s peer.Sockets, text string) net.Listener {
	t.Helper()
	l, err := s.Listen(t.Context(), at(t, text), "--xds-address")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestParse(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"127.0.0.1:18000":                   "127.0.0.1:18000",
		":18000":                            ":18000",
		"[::1]:9001":                        "[::1]:9001",
		"xds.internal:0":                    "xds.internal:0",
		"unix:/run/x.sock":                  "unix:/run/x.sock",
		"unix:x.sock":                       "unix:" + here + "/x.sock",
		"unix:@x":                           "unix:" + here + "/@x", // never an abstract name, which has no owner
		"unix:/" + strings.Repeat("a", 103): "unix:/" + strings.Repeat("a", 103),
	} {
		if a, err := peer.Parse(text); err != nil || a.String() != want {
			t.Errorf("Parse(%q) = %q, %v; want %q", text, a, err, want)
		}
	}
	for text, want := range map[string]string{
		"":                                  "neither `host:port` nor `unix:PATH`",
		"127.0.0.1":                         "neither `host:port` nor `unix:PATH`",
		"127.0.0.1:http":                    "not a number",
		"127.0.0.1:65536":                   "not a number",
		"unix:":                             "write the path",
		"unix:a\x00b":                       "write the path",
		"unix:/" + strings.Repeat("a", 104): "105 bytes, a socket's may have 104",
	} {
		if _, err := peer.Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q): %v, want it to say %q", text, err, want)
		}
	}
	_, err = peer.ParseAll("--xds-servers", []string{"a", "unix:", "b:1"})
	if err == nil || strings.Count(err.Error(), "--xds-servers") != 2 {
		t.Errorf("a list with two faults: %v", err)
	}
	if _, err := peer.ParseAll("--xds-servers", nil); err == nil {
		t.Error("an empty list names somebody")
	}
	for text, want := range map[string]bool{"unix:/x": true, "127.0.0.1:1": true, "localhost:1": true, ":1": false, "10.0.0.1:1": false} {
		if got := at(t, text).Local(); got != want {
			t.Errorf("%s: Local() = %v", text, got)
		}
	}
}

// serve answers health checks and remembers who asked.
func serve(t *testing.T, l net.Listener, creds credentials.TransportCredentials) *atomic.Pointer[peer.Identity] {
	t.Helper()
	var who atomic.Pointer[peer.Identity]
	server := grpc.NewServer(grpc.Creds(creds), grpc.UnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if id, ok := peer.FromContext(ctx); ok {
			who.Store(&id)
		}
		return next(ctx, request)
	}))
	healthv1.RegisterHealthServer(server, health.NewServer())
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return &who
}

func ask(t *testing.T, target string, options ...grpc.DialOption) error {
	t.Helper()
	client, err := grpc.NewClient("passthrough:///"+target, options...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err = healthv1.NewHealthClient(client).Check(ctx, &healthv1.HealthCheckRequest{})
	return err
}

func TestIdentityComesFromTheTransport(t *testing.T) {
	sockets := peer.Sockets{}
	path := "unix:" + filepath.Join(open(t), "x.sock")
	who := serve(t, listen(t, sockets, path), peer.Credentials(nil))
	if err := ask(t, path, sockets.DialOptions(nil)...); err != nil {
		t.Fatal(err)
	}
	if got, want := *who.Load(), (peer.Identity{UID: os.Geteuid(), Local: true}); got != want {
		t.Errorf("over a socket: %+v, want %+v", got, want)
	}

	l := listen(t, sockets, "127.0.0.1:0")
	who = serve(t, l, peer.Credentials(peer.Plain()))
	if err := ask(t, l.Addr().String(), sockets.DialOptions(peer.Plain())...); err != nil {
		t.Fatal(err)
	}
	if got, want := *who.Load(), (peer.Identity{UID: peer.NoUID}); got != want {
		t.Errorf("over plain TCP: %+v, want nobody", got)
	}

	if id, ok := peer.FromContext(t.Context()); ok || id.Local || id.UID != peer.NoUID {
		t.Errorf("without a connection: %+v, %v", id, ok)
	}
}

func TestPlainTCPMustBeAskedFor(t *testing.T) {
	sockets := peer.Sockets{}
	l := listen(t, sockets, "127.0.0.1:0")
	serve(t, l, peer.Credentials(nil))
	if err := ask(t, l.Addr().String(), sockets.DialOptions(peer.Plain())...); status.Code(err) != codes.Unavailable {
		t.Errorf("a server for sockets took plain TCP: %v", err)
	}
	l = listen(t, sockets, "127.0.0.1:0")
	serve(t, l, peer.Credentials(peer.Plain()))
	if err := ask(t, l.Addr().String(), sockets.DialOptions(nil)...); err == nil || !strings.Contains(err.Error(), "--insecure") {
		t.Errorf("a client for sockets took plain TCP: %v", err)
	}
	// A socket that was not opened by us has asked nobody who is there.
	path := filepath.Join(open(t), "x.sock")
	bare, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, bare, peer.Credentials(peer.Plain()))
	if err := ask(t, "unix:"+path, sockets.DialOptions(nil)...); status.Code(err) != codes.Unavailable {
		t.Errorf("a connection whose user nobody looked at was taken: %v", err)
	}
}

func TestAnotherUserIsClosedBeforeAByteIsRead(t *testing.T) {
	var log bytes.Buffer
	path := filepath.Join(open(t), "x.sock")
	l := listen(t, peer.Sockets{AllowUID: []int{1}, Log: slog.New(slog.NewJSONHandler(&log, nil))}, "unix:"+path)
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			accepted <- c
		}
	}()
	const knocks = 60
	began := time.Now()
	for range knocks {
		asNobody(t, func() {
			c, err := net.Dial("unix", path)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			_, _ = c.Write([]byte("PRI * HTTP/2.0\r\n\r\n"))
			if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read %d bytes, %v; want the end", n, err)
			}
		})
	}
	c, err := net.Dial("unix", path) // one of ours gets in
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	select {
	case c := <-accepted:
		defer c.Close()
	case <-time.After(10 * time.Second):
		t.Fatal("our own connection was not accepted")
	}
	if said := log.String(); !strings.Contains(said, `"uid":65534`) || !strings.Contains(said, `"pid":`) || !strings.Contains(said, path) {
		t.Errorf("the log does not tell who tried: %s", said)
	}
	most := 10 * (int(time.Since(began)/time.Second) + 2)
	if lines := strings.Count(log.String(), "\n"); lines < 10 || lines > most {
		t.Errorf("%d refusals made %d lines, want 10 to %d: ten a second", knocks, lines, most)
	}
}

func TestAllowedUserAndFilesOfTheOthers(t *testing.T) {
	dir := open(t)
	allowed, ours := filepath.Join(dir, "a.sock"), filepath.Join(dir, "run", "b.sock")
	who := serve(t, listen(t, peer.Sockets{AllowUID: []int{nobody}}, "unix:"+allowed), peer.Credentials(nil))
	listen(t, peer.Sockets{}, "unix:"+ours)
	asNobody(t, func() {
		c, err := net.Dial("unix", allowed)
		if err != nil {
			t.Error(err)
			return
		}
		_ = c.Close()
		if _, err := net.Dial("unix", ours); !errors.Is(err, os.ErrPermission) {
			t.Errorf("another user reaches our socket: %v", err)
		}
	})
	for path, want := range map[string]os.FileMode{filepath.Dir(ours): 0o700, ours: 0o600, allowed: 0o666} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
	if err := ask(t, "unix:"+allowed, peer.Sockets{}.DialOptions(nil)...); err != nil || who.Load() == nil {
		t.Errorf("our own part: %v", err)
	}
}

func TestClientRefusesTheSocketOfAnotherUser(t *testing.T) {
	path := filepath.Join(open(t), "x.sock")
	var l net.Listener
	asNobody(t, func() {
		var err error
		if l, err = net.Listen("unix", path); err != nil {
			t.Error(err)
		}
	})
	defer l.Close()
	if _, err := (peer.Sockets{}).Dial(t.Context(), "unix:"+path); err == nil || !strings.Contains(err.Error(), "user 65534") {
		t.Errorf("a stranger may play our server: %v", err)
	}
	c, err := (peer.Sockets{AllowUID: []int{nobody}}).Dial(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatalf("an allowed user's server: %v", err)
	}
	_ = c.Close()
}

func TestSocketsOfTheDeadAreReplacedAndNoOthers(t *testing.T) {
	path := filepath.Join(open(t), "x.sock")
	address := "unix:" + path
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false) // as kill -9 leaves it
	_ = dead.Close()
	first := listen(t, peer.Sockets{}, address)

	_, err = peer.Sockets{}.Listen(t.Context(), at(t, address), "--xds-address")
	for _, want := range []string{"--xds-address", path, "served by another process", "--data-dir"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a second listener: %v, want it to say %q", err, want)
		}
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the second listener took the socket from the first: %v", err)
	} else {
		_ = c.Close()
	}
	_ = first.Close()
	_ = first.Close() // as gRPC and its owner both do
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}

	// One that was opened without our mark is as alive.
	alive, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	if _, err := (peer.Sockets{}).Listen(t.Context(), at(t, address), "--xds-address"); err == nil {
		t.Error("a socket that is served was taken")
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("it was unlinked: %v", err)
	} else {
		_ = c.Close()
	}
}

func TestOnlySocketsAreReplaced(t *testing.T) {
	dir := open(t)
	file, link := filepath.Join(dir, "keys.yaml"), filepath.Join(dir, "x.sock")
	if err := os.WriteFile(file, []byte("keys: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link} {
		if _, err := (peer.Sockets{}).Listen(t.Context(), at(t, "unix:"+path), "--xds-address"); err == nil || !strings.Contains(err.Error(), "no socket") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if data, err := os.ReadFile(link); err != nil || string(data) != "keys: []\n" {
		t.Errorf("the file is %q, %v", data, err)
	}
}

func TestOfManyStartersOneGetsTheSocket(t *testing.T) {
	address := at(t, "unix:"+filepath.Join(open(t), "x.sock"))
	for range 20 {
		start := make(chan struct{})
		got := make(chan net.Listener, 8)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				<-start
				if l, err := (peer.Sockets{}).Listen(t.Context(), address, "--xds-address"); err == nil {
					got <- l
				}
			})
		}
		close(start)
		wg.Wait()
		close(got)
		if len(got) != 1 {
			t.Fatalf("%d of 8 got the socket", len(got))
		}
		for l := range got {
			_ = l.Close()
		}
	}
}
