package xds

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"google.golang.org/grpc/credentials"

	"tollgate/api/contract"
	"tollgate/internal/peer"
	"tollgate/xds/admin"
	"tollgate/xds/trust"
)

// members is what the xDS port serves over HTTPS to those who join, renew or
// register; on plain text it is nothing.
type members struct {
	server  *http.Server
	handoff *peer.Handoff
}

// open makes the credentials of the xDS port.
func open(cfg Config, api admin.Config, log *slog.Logger) (*members, credentials.TransportCredentials, error) {
	if cfg.Identity == nil {
		return &members{}, peer.Credentials(peer.Plain()), nil
	}
	api.Owns = func(r *http.Request, service string) bool { return owns(r, service, log) }
	mux := http.NewServeMux()
	mux.Handle("/v1/registry/", admin.New(api))
	if cfg.Authority != nil {
		tokens, err := trust.OpenTokens(cfg.DataDir, cfg.Authority, time.Now)
		if err != nil {
			return nil, nil, err
		}
		door := (&trust.Door{Authority: cfg.Authority, Tokens: tokens, Log: log}).Handler()
		mux.Handle("/v1/join", door)
		mux.Handle("/v1/renew", door)
	}
	m := &members{handoff: peer.NewHandoff(cfg.Listener.Addr()), server: &http.Server{
		Handler: renewing(mux), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
	mutual := peer.Mutual{
		Source: cfg.Identity, HTTP: m.handoff.Give, Log: log,
		Roles: []string{contract.RoleEdge, contract.RoleExtAuthz, contract.RoleRateLimit, contract.RoleClient},
	}
	return m, peer.Credentials(mutual.Credentials()), nil
}

// renewing ends a connection after the answer once its certificate is past half
// its life: the member has a new one by then, and one that never does not
// outlive its own on a connection that stays open.
func renewing(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			leaf := r.TLS.PeerCertificates[0]
			if time.Until(leaf.NotAfter) < leaf.NotAfter.Sub(leaf.NotBefore)/2 {
				w.Header().Set("Connection", "close")
			}
		}
		next.ServeHTTP(w, r)
	})
}

// owns says whether a request comes from a member that is the service, or its
// half that speaks gRPC, which registers beside it.
func owns(r *http.Request, service string, log *slog.Logger) bool {
	who, ok := trust.Member(r)
	if ok && who.Role == contract.RoleService && (service == who.Name || service == who.Name+"-grpc") {
		return true
	}
	if ok {
		log.Warn("registration refused: the certificate is another's", "identity", who.Role+"/"+who.Name, "resource", service, "address", r.RemoteAddr)
	}
	return false
}

// Run serves until ctx ends.
func (m *members) Run(ctx context.Context) error {
	if m.server == nil {
		<-ctx.Done()
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- m.server.Serve(m.handoff) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	err := errors.Join(m.handoff.Close(), m.server.Close())
	if served := <-done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
