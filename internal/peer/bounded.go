package peer

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"
)

// judgedEvery is how often an open connection is judged again.
const judgedEvery = time.Second

// errEnded is that of a connection that would outlive its certificate.
var errEnded = errors.New("its certificate has ended")

// bounded is a connection that ends with what it was let in for. Its other end
// comes back with the certificate that it has by then, or not at all.
type bounded struct {
	net.Conn
	who   Identity
	judge func(Identity) error
	log   *slog.Logger

	mu    sync.Mutex
	timer *time.Timer // nil: closed
}

// bind keeps judging a connection until it is closed.
func (m Mutual) bind(c net.Conn, who Identity) *bounded {
	b := &bounded{Conn: c, who: who, judge: m.judge, log: m.Log}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.timer = time.AfterFunc(b.next(), b.again)
	return b
}

// judge says why somebody may not be here, now.
func (m Mutual) judge(who Identity) error {
	if !time.Now().Before(who.NotAfter) {
		return errEnded
	}
	if m.Refuse == nil {
		return nil
	}
	return m.Refuse(who)
}

// next is when to look again: by the clock on the wall, which goes on while a
// machine sleeps and timers do not.
func (b *bounded) next() time.Duration {
	return max(0, min(judgedEvery, time.Until(b.who.NotAfter)))
}

func (b *bounded) again() {
	err := b.judge(b.who)
	b.mu.Lock()
	if b.timer == nil {
		b.mu.Unlock()
		return
	}
	if err == nil {
		b.timer.Reset(b.next())
		b.mu.Unlock()
		return
	}
	b.mu.Unlock()
	if b.log != nil {
		level := slog.LevelWarn
		if errors.Is(err, errEnded) {
			level = slog.LevelInfo // whoever has renewed comes back at once
		}
		b.log.Log(context.Background(), level, "connection ended", "name", b.who.Role+"/"+b.who.Name, "address", b.RemoteAddr().String(), "err", err)
	}
	_ = b.Close()
}

// Close ends the connection.
func (b *bounded) Close() error {
	b.mu.Lock()
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
	b.mu.Unlock()
	return b.Conn.Close()
}
