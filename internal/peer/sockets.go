package peer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"tollgate/internal/daemon"
)

// aliveWithin bounds the question whether somebody serves a socket.
const aliveWithin = time.Second

// Sockets opens and meets Unix sockets, and TCP by the same words. At their
// other end it takes processes of root, of our own user and of AllowUID.
type Sockets struct {
	AllowUID []int
	Log      *slog.Logger // told of those who were refused
}

// Listen binds an address; where says which setting it comes from, such as
// "--xds-address". A socket that nobody serves any more is replaced; one that is
// served is an error, and so is anything else under its name. Of two processes
// that ask at once one gets it. Its folder is made for us alone (0700).
func (s Sockets) Listen(ctx context.Context, a Address, where string) (net.Listener, error) {
	if !a.Socket() {
		return daemon.Listen(ctx, a.String(), where)
	}
	claim, err := Take(ctx, a, where)
	if err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", a.Path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s %s: %w", where, a, err), claim.Release())
	}
	mode := fs.FileMode(0o600)
	if len(s.AllowUID) > 0 {
		mode = 0o666 // who may enter the folder may knock; the kernel tells who it is
	}
	if err := os.Chmod(a.Path, mode); err != nil {
		return nil, errors.Join(fmt.Errorf("%s %s: %w", where, a, err), l.Close(), claim.Release())
	}
	return &listener{Listener: l, address: a, sockets: s, claim: claim}, nil
}

// Dial connects to what Parse reads. A socket that another user serves is an
// error: what it says would not be our own part's word.
func (s Sockets) Dial(ctx context.Context, text string) (net.Conn, error) {
	a, err := Parse(text)
	if err != nil {
		return nil, err
	}
	if !a.Socket() {
		return (&net.Dialer{}).DialContext(ctx, "tcp", a.String())
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", a.Path)
	if err != nil {
		return nil, err
	}
	process, err := other(c)
	if err == nil && !s.allowed(process) {
		err = fmt.Errorf("%s is served by a process of user %d, who is neither root nor us: remove it, or allow that user with --allow-uid", a, process.Uid)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &conn{Conn: c, uid: int(process.Uid)}, nil
}

func (s Sockets) allowed(process *syscall.Ucred) bool { return s.Allows(int(process.Uid)) }

// Allows says whether a user is root, ours, or one of AllowUID.
func (s Sockets) Allows(uid int) bool {
	return uid == 0 || uid == os.Geteuid() || slices.Contains(s.AllowUID, uid)
}

// other is the process at the other end, as the kernel remembers it from when
// the connection was made.
func other(c net.Conn) (*syscall.Ucred, error) {
	socket, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.New("not a Unix socket")
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	var process *syscall.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		process, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	return process, errors.Join(err, failed)
}

// conn is a connection over a socket whose other end is known.
type conn struct {
	net.Conn
	uid int
}

// listener hands out the connections of allowed users only.
type listener struct {
	net.Listener
	address Address
	sockets Sockets
	claim   *Claim
	refused refusals
	once    sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		process, err := other(c)
		if err == nil && l.sockets.allowed(process) {
			return &conn{Conn: c, uid: int(process.Uid)}, nil
		}
		_ = c.Close()
		if say, since := l.refused.add(time.Now()); say && l.sockets.Log != nil {
			if err != nil {
				process = &syscall.Ucred{}
			}
			l.sockets.Log.Warn("connection refused: its user is neither root nor us nor of --allow-uid",
				"resource", l.address.String(), "uid", process.Uid, "pid", process.Pid, "refused", since, "err", err)
		}
	}
}

// Addr shows the address as it is written in flags.
func (l *listener) Addr() net.Addr { return name(l.address.String()) }

// Close removes the socket before another may take its name.
func (l *listener) Close() error {
	err := l.Listener.Close()
	l.once.Do(func() { err = errors.Join(err, l.claim.Release()) })
	return err
}

// name is an address for humans and flags.
type name string

func (n name) Network() string { return "unix" }
func (n name) String() string  { return string(n) }

// refusals lets ten a second be told; the rest are counted with the next.
type refusals struct {
	mu     sync.Mutex
	second int64
	told   int
	count  int
}

const toldASecond = 10

func (r *refusals) add(now time.Time) (say bool, since int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if second := now.Unix(); second != r.second {
		r.second, r.told = second, 0
	}
	r.count++
	if r.told >= toldASecond {
		return false, 0
	}
	r.told++
	since, r.count = r.count, 0
	return true, since
}

// Claim is the right to serve the socket of a path, until Release or the end of
// the process, however it ends.
type Claim struct {
	address Address
	where   string
	lock    *os.File
}

// Take claims the path of a socket, for us or for a program that we start.
// Nothing serves the path when it returns without an error, and nothing is left
// there.
func Take(ctx context.Context, a Address, where string) (*Claim, error) {
	c, err := Lock(a, where)
	if err != nil {
		return nil, err
	}
	if err := c.Clear(ctx); err != nil {
		return nil, errors.Join(err, c.Release())
	}
	return c, nil
}

// Lock claims the path of a socket and leaves what is there: a program that we
// once started may still serve it.
func Lock(a Address, where string) (*Claim, error) {
	if err := os.MkdirAll(filepath.Dir(a.Path), 0o700); err != nil {
		return nil, fmt.Errorf("%s %s: %w", where, a, err)
	}
	lock, err := os.OpenFile(a.Path+".lock", os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", where, a, err)
	}
	c := &Claim{address: a, where: where, lock: lock}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = c.taken()
		}
		return nil, errors.Join(err, c.Release())
	}
	return c, nil
}

// Clear removes what a dead process left under the path. It is an error when
// somebody serves it.
func (c *Claim) Clear(ctx context.Context) error {
	served, err := Served(ctx, c.address)
	if err == nil && !served {
		if err = os.Remove(c.address.Path); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	switch {
	case err != nil:
		return fmt.Errorf("%s %s: %w", c.where, c.address, err)
	case served:
		return c.taken()
	}
	return nil
}

func (c *Claim) taken() error {
	return fmt.Errorf("%s %s: the socket is served by another process: stop it, or choose another --data-dir or path", c.where, c.address)
}

// Release gives the claim up. The file that marks it stays: a second process
// could hold the removed one while a third makes a new one.
func (c *Claim) Release() error { return c.lock.Close() }

// Served says whether somebody listens on a socket. Anything else under its
// name is an error.
func Served(ctx context.Context, a Address) (bool, error) {
	info, err := os.Lstat(a.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return false, errors.New("what is there is no socket: remove it, or choose another path")
	}
	ctx, cancel := context.WithTimeout(ctx, aliveWithin)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", a.Path)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		_ = c.Close()
	}
	return true, nil // also when its backlog is full, or it is not ours to ask
}
