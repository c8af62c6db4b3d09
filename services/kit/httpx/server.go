package httpx

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Server serves HTTP/1.1 and HTTP/2 without TLS on a bound listener.
type Server struct {
	listener net.Listener
	router   *Router
	server   *http.Server
	grace    time.Duration
}

// NewServer returns a server that gives requests up to grace at the end.
func NewServer(l net.Listener, router *Router, grace time.Duration, log *slog.Logger) *Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &Server{listener: l, router: router, grace: grace, server: &http.Server{
		Handler: router, Protocols: protocols,
		// Counted from the start of a connection for its first request, and a proxy
		// has some to spare for 30 s.
		ReadHeaderTimeout: time.Minute, ReadTimeout: time.Minute, WriteTimeout: 15 * time.Second,
		// Longer than a proxy keeps idle connections: the side that closes
		// must be the one that knows no request is on its way.
		IdleTimeout:    2 * time.Hour,
		MaxHeaderBytes: 64 << 10,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
}

// Drain tells health checks to send traffic elsewhere; requests are answered.
func (s *Server) Drain() { s.router.Drain() }

// Run serves until ctx ends, then stops accepting and finishes what runs.
func (s *Server) Run(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- s.server.Serve(s.listener) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.grace)
	defer cancel()
	if err := s.server.Shutdown(grace); err != nil {
		_ = s.server.Close()
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
