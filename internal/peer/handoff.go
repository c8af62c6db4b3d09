package peer

import (
	"crypto/tls"
	"net"
	"sync"
)

// Handoff is a listener of connections that another one accepted.
type Handoff struct {
	address net.Addr
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

// NewHandoff returns a listener that shows an address as its own.
func NewHandoff(address net.Addr) *Handoff {
	return &Handoff{address: address, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Give hands over a connection; after Close it is closed.
func (h *Handoff) Give(c *tls.Conn) {
	select {
	case h.conns <- c:
	case <-h.closed:
		_ = c.Close()
	}
}

// Accept waits for a connection.
func (h *Handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (h *Handoff) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr is the address that was shown.
func (h *Handoff) Addr() net.Addr { return h.address }
