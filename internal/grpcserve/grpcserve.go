// Package grpcserve runs a gRPC server for as long as a context lives, and ends
// it as every server of ours ends: those who ask for its health are sent
// elsewhere, no new call is taken, running ones have a grace, the rest is cut.
package grpcserve

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
)

// Config is one server on a bound listener.
type Config struct {
	Name     string // what an error begins with, such as "extauthz"
	Listener net.Listener
	Server   *grpc.Server
	Health   *health.Server
	Grace    time.Duration // for calls that run when it ends
}

// Run serves until ctx ends; then it is nil once every call has ended, Grace
// later at most.
func Run(ctx context.Context, c Config) error {
	served := make(chan error, 1)
	go func() { served <- c.Server.Serve(c.Listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("%s: serve %s: %w", c.Name, c.Listener.Addr(), err)
	case <-ctx.Done():
	}
	c.Health.Shutdown()
	hard := time.AfterFunc(c.Grace, c.Server.Stop)
	defer hard.Stop()
	c.Server.GracefulStop()
	return <-served
}
