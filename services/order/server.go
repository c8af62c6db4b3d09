// Package order is the order service of the demo: the orders of each tenant,
// over HTTP for clients behind the gateway and over gRPC for peers. Invariants:
// a caller sees and changes only what belongs to the tenant of its token; an
// order is stored only after the user service has named its user, and a
// creation repeated under one Idempotency-Key is stored once.
package order

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	orderv1 "tollgate/api/order/v1"
	"tollgate/services/kit/instance"
	"tollgate/services/kit/sqlite"
)

// Config is one instance of the service.
type Config struct {
	HTTP, GRPC    net.Listener // bound
	DataDir       string       // the database file is shared by all instances
	Instance      string
	Zone          string
	Advertise     string      // host to register when the listeners are on all interfaces
	Audiences     []string    // of the tokens that are meant for this service
	JWKS          string      // of those tokens: file or URL
	Registry      []string    // admin addresses of the control planes
	RegistryToken string      // file; not read when the certificate says who we are
	RegistryTLS   *tls.Config // how to meet the registry; nil: over plain text
	ServiceName   string      // in the registry; "" is "order"
	UserGRPC      []string    // host:port of the user service's instances
	Log           *slog.Logger
	Metrics       prometheus.Registerer
}

// Server is one instance.
type Server struct {
	instance *instance.Instance
	db       *sql.DB
	users    *userPeer
}

// New opens the database and assembles the service on its bound listeners.
func New(cfg Config) (*Server, error) {
	if cfg.ServiceName == "" {
		cfg.ServiceName = "order"
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, err
	}
	db, err := sqlite.Open(context.Background(), filepath.Join(cfg.DataDir, "order.db"), migrations())
	if err != nil {
		return nil, err
	}
	orders := &service{store: store{db: db}}
	host, err := instance.New(instance.Config{
		Service: cfg.ServiceName, Instance: cfg.Instance, HTTP: cfg.HTTP, GRPC: cfg.GRPC,
		Zone: cfg.Zone, Advertise: cfg.Advertise, Audiences: cfg.Audiences, JWKS: cfg.JWKS,
		Registry: cfg.Registry, RegistryToken: cfg.RegistryToken, RegistryTLS: cfg.RegistryTLS, Log: cfg.Log, Metrics: cfg.Metrics,
		Register: func(r grpc.ServiceRegistrar) { orderv1.RegisterOrderServiceServer(r, &grpcDoor{orders: orders}) },
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	users, err := dialUsers(cfg.UserGRPC, host.Tracing)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("service %s: %w", cfg.ServiceName, err), db.Close())
	}
	orders.users = users
	web := &httpDoor{orders: orders}
	host.Router.Handle("GET /api/orders", web.list)
	host.Router.Handle("POST /api/orders", web.create)
	host.Router.Handle("GET /api/orders/{id}", web.get)
	host.Router.Handle("DELETE /api/orders/{id}", web.remove)
	host.Router.Handle("GET /api/orders/_whoami", host.WhoAmI)
	return &Server{instance: host, db: db, users: users}, nil
}

// Run serves until ctx ends, then leaves without failing a request.
func (s *Server) Run(ctx context.Context) error {
	return errors.Join(s.instance.Run(ctx), s.users.close(), s.db.Close())
}
