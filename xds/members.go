package xds

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
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
	fleet   *trust.Members
	leave   func(service string, since time.Time) // the registry forgets who was not heard since
}

// open makes the credentials of the xDS port.
func open(cfg Config, api admin.Config, fleet *trust.Members, log *slog.Logger) (*members, credentials.TransportCredentials, error) {
	if cfg.Identity == nil {
		return &members{}, peer.Credentials(peer.Plain()), nil
	}
	api.Owns = func(r *http.Request, service string) bool { return owns(r, service, fleet, api.Log) }
	mux := http.NewServeMux()
	mux.Handle("/v1/registry/", admin.New(api))
	if cfg.Authority != nil {
		tokens, err := trust.OpenTokens(cfg.DataDir, cfg.Authority, time.Now)
		if err != nil {
			return nil, nil, err
		}
		door := (&trust.Door{Authority: cfg.Authority, Tokens: tokens, Log: api.Log}).Handler()
		mux.Handle("/v1/join", door)
		mux.Handle("/v1/renew", door)
	}
	m := &members{fleet: fleet, leave: api.Registry.Leave, handoff: peer.NewHandoff(cfg.Listener.Addr()), server: &http.Server{
		Handler: renewing(mux), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
	mutual := peer.Mutual{
		Source: cfg.Identity, HTTP: m.handoff.Give, Refuse: fleet.Refuse, Log: log,
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
func owns(r *http.Request, service string, fleet *trust.Members, log *slog.Logger) bool {
	who, ok := trust.Member(r)
	if !ok {
		return false
	}
	if err := fleet.Refuse(who); err != nil {
		log.Warn("registration refused", "resource", service, "address", r.RemoteAddr, "err", err)
		return false
	}
	if who.Role == contract.RoleService && (service == who.Name || service == who.Name+"-grpc") {
		return true
	}
	log.Warn("registration refused: the certificate is another's", "identity", who.Role+"/"+who.Name, "resource", service, "address", r.RemoteAddr)
	return false
}

// toBeHeard is three heartbeats of an instance.
const toBeHeard = 10 * time.Second

// watch takes the instances of services that are removed out of the balance:
// each could have asked to be believed for minutes. One that was removed before we
// started may have been let in again: it has the time to be heard.
func (m *members) watch(ctx context.Context) {
	start, seen := time.Now(), map[string]time.Time{}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		for member, since := range m.fleet.Removed() {
			if seen[member].Equal(since) || since.Before(start) && time.Since(start) < toBeHeard {
				continue
			}
			seen[member] = since
			if service, ok := strings.CutPrefix(member, contract.RoleService+"/"); ok && since.Before(start) {
				m.leave(service, start)
			} else if ok {
				m.leave(service, time.Now())
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Fault says why removals cannot be read; nil when they can.
func (m *members) Fault() error {
	if m.fleet == nil {
		return nil
	}
	return m.fleet.Fault()
}

// Run serves until ctx ends.
func (m *members) Run(ctx context.Context) error {
	if m.server == nil {
		<-ctx.Done()
		return nil
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watching.Go(func() { m.watch(ctx) })
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
