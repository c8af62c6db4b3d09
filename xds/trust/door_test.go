package trust_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"tollgate/api/contract"
	"tollgate/internal/join"
	"tollgate/internal/peer"
	"tollgate/xds/trust"
)

// plane is a control plane's port: gRPC for certificates, the door for the rest.
type plane struct {
	address string
	log     *lockedBuffer
	tokens  *trust.Tokens
	dir     string
	members *trust.Members
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.String()
}

func startPlane(t *testing.T, dir string, ttl time.Duration, role string) *plane {
	t.Helper()
	a, err := trust.Open(trust.Config{Dir: dir, TTL: ttl, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := trust.OpenTokens(dir, a, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &plane{address: l.Addr().String(), log: &lockedBuffer{}, tokens: tokens, dir: dir, members: a.Members()}
	log := slog.New(slog.NewJSONHandler(p.log, nil))
	web := peer.NewHandoff(l.Addr())
	mutual := peer.Mutual{Source: a.Own(role, "xds-1"), Roles: []string{contract.RoleEdge}, HTTP: web.Give, Refuse: a.Members().Refuse, Log: log}
	// As xDS does, whose streams begin so.
	judge := func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		who, _ := peer.FromContext(ctx)
		if err := a.Members().Refuse(who); err != nil {
			return nil, status.Error(codes.PermissionDenied, err.Error())
		}
		return handler(ctx, request)
	}
	rpc := grpc.NewServer(grpc.Creds(mutual.Credentials()), grpc.UnaryInterceptor(judge))
	healthv1.RegisterHealthServer(rpc, health.NewServer())
	server := &http.Server{Handler: (&trust.Door{Authority: a, Tokens: tokens, Log: log}).Handler(), ReadHeaderTimeout: time.Second}
	var wg sync.WaitGroup
	wg.Go(func() { rpc.Serve(l) })
	wg.Go(func() { server.Serve(web) })
	t.Cleanup(func() {
		rpc.Stop()
		server.Close()
		web.Close()
		wg.Wait()
	})
	return p
}

func (p *plane) member(t *testing.T, role, name string) (*join.Member, error) {
	t.Helper()
	token, err := p.tokens.Make(role, name, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return p.with(t, t.TempDir(), token)
}

func (p *plane) with(t *testing.T, dir, token string) (*join.Member, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	return join.Open(ctx, join.Config{Dir: dir, Token: token, Servers: []string{p.address}, Log: slog.New(slog.DiscardHandler)})
}

func (p *plane) ask(t *testing.T, source peer.Source, serverRole string) error {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+p.address, grpc.WithTransportCredentials(peer.Mutual{Source: source, Roles: []string{serverRole}}.Credentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err = healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{})
	return err
}

// TestJoin: a token becomes a certificate, which opens the port, stays over a
// restart without the token, and is renewed.
func TestJoin(t *testing.T) {
	p := startPlane(t, t.TempDir(), time.Minute, contract.RoleXDS)
	token, err := p.tokens.Make(contract.RoleEdge, "edge-1", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	m, err := p.with(t, dir, token)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.ask(t, m, contract.RoleXDS); err != nil {
		t.Fatal(err)
	}
	who, err := m.Identity()
	if err != nil || who.Role != contract.RoleEdge || who.Name != "edge-1" {
		t.Fatal(who, err)
	}
	first, _ := m.GetX509SVID()
	again, err := p.with(t, dir, "") // a restart
	if err != nil {
		t.Fatal(err)
	}
	second, _ := again.GetX509SVID()
	if !first.Certificates[0].Equal(second.Certificates[0]) {
		t.Error("a restart joined again")
	}
	for _, name := range []string{"identity.pem", "roots.pem"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "pending.key")); !errors.Is(err, os.ErrNotExist) {
		t.Error("the key of the join was left behind")
	}
	if _, err := p.with(t, t.TempDir(), token); err == nil || !strings.Contains(err.Error(), "used already") {
		t.Errorf("a spent token: %v", err)
	}
}

// TestRenewal: certificates of two seconds are renewed at half their life, and the
// port stays open through all of them.
func TestRenewal(t *testing.T) {
	p := startPlane(t, t.TempDir(), 2*time.Second, contract.RoleXDS)
	m, err := p.member(t, contract.RoleEdge, "edge-1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- m.Run(ctx) }()
	seen := map[string]bool{}
	for stop := time.Now().Add(5 * time.Second); time.Now().Before(stop); time.Sleep(20 * time.Millisecond) {
		if err := p.ask(t, m, contract.RoleXDS); err != nil {
			t.Fatal(err)
		}
		svid, _ := m.GetX509SVID()
		seen[svid.Certificates[0].SerialNumber.String()] = true
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if len(seen) < 3 || len(seen) > 12 {
		t.Errorf("%d certificates in 5 s of 2 s each", len(seen))
	}
	if err := m.Fault(); err != nil {
		t.Error(err)
	}
}

// TestWhoIsKeptOut: every wrong certificate is refused before a call is read,
// and the attempt is in the log.
func TestWhoIsKeptOut(t *testing.T) {
	p := startPlane(t, t.TempDir(), time.Minute, contract.RoleXDS)
	edge, err := p.member(t, contract.RoleEdge, "edge-1")
	if err != nil {
		t.Fatal(err)
	}
	service, err := p.member(t, contract.RoleService, "orders")
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := startPlane(t, t.TempDir(), time.Minute, contract.RoleXDS).member(t, contract.RoleEdge, "edge-1")
	if err != nil {
		t.Fatal(err)
	}
	short := startPlane(t, p.dir, time.Second, contract.RoleXDS)
	ended, err := short.member(t, contract.RoleEdge, "edge-1")
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := ended.GetX509SVID()
	time.Sleep(time.Until(leaf.Certificates[0].NotAfter.Add(time.Millisecond)))
	for name, source := range map[string]peer.Source{"a service's": service, "another fleet's": mixed{stranger, edge}, "an ended one": mixed{ended, edge}} {
		if err := p.ask(t, source, contract.RoleXDS); status.Code(err) != codes.Unavailable {
			t.Errorf("%s certificate: %v", name, err)
		}
	}
	if err := p.ask(t, stranger, contract.RoleXDS); err == nil {
		t.Error("a client of another fleet believed us")
	}
	if err := p.ask(t, edge, contract.RoleExtAuthz); err == nil {
		t.Error("a client that wants an authorization server believed a control plane")
	}
	// Without a certificate, and with an older TLS.
	for name, config := range map[string]*tls.Config{
		"none":    {InsecureSkipVerify: true, NextProtos: []string{"h2"}},
		"TLS 1.2": {InsecureSkipVerify: true, NextProtos: []string{"h2"}, MaxVersion: tls.VersionTLS12},
		"no ALPN": {InsecureSkipVerify: true},
	} {
		c, err := tls.Dial("tcp", p.address, config)
		if err != nil {
			continue
		}
		c.SetDeadline(time.Now().Add(2 * time.Second))
		if n, err := c.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the server spoke to us or waits: %d %v", name, n, err)
		}
		c.Close()
	}
	if text := p.log.text(); strings.Count(text, "connection refused") == 0 {
		t.Errorf("no attempt is in the log: %s", text)
	}
	if err := p.ask(t, edge, contract.RoleXDS); err != nil {
		t.Fatal(err)
	}
}

// mixed shows one's certificate and believes the other's roots.
type mixed struct{ shows, believes peer.Source }

func (m mixed) GetX509SVID() (*x509svid.SVID, error) { return m.shows.GetX509SVID() }

func (m mixed) GetX509BundleForTrustDomain(d spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return m.believes.GetX509BundleForTrustDomain(d)
}

// TestTheTokenGoesToItsFleetOnly: a server that cannot show the token's root, or
// is no control plane of it, never reads the token.
func TestTheTokenGoesToItsFleetOnly(t *testing.T) {
	ours := startPlane(t, t.TempDir(), time.Minute, contract.RoleXDS)
	theirs := startPlane(t, t.TempDir(), time.Minute, contract.RoleXDS)
	member := startPlane(t, ours.dir, time.Minute, contract.RoleExtAuthz) // of the fleet, no control plane
	token, err := ours.tokens.Make(contract.RoleEdge, "edge-1", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for name, other := range map[string]*plane{"another fleet": theirs, "another member": member} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		_, err := join.Open(ctx, join.Config{Dir: t.TempDir(), Token: token, Servers: []string{other.address}, Log: slog.New(slog.DiscardHandler)})
		cancel()
		if err == nil || strings.Contains(other.log.text(), "nobody joined") {
			t.Errorf("%s: %v\n%s", name, err, other.log.text())
		}
	}
	if _, err := ours.with(t, t.TempDir(), token); err != nil {
		t.Fatalf("the token was spent: %v", err)
	}
}

// TestDoor: what the door answers to those without a token or certificate.
func TestDoor(t *testing.T) {
	p := startPlane(t, t.TempDir(), time.Minute, contract.RoleXDS)
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 2 * time.Second}
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{"POST", "/v1/renew", `{}`, 401},
		{"POST", "/v1/join", `{}`, 400},
		{"POST", "/v1/join", `{"csr":"` + strings.Repeat("x", 20<<10) + `"}`, 400},
		{"POST", "/v1/join", `{"csr":"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"}`, 400},
		{"GET", "/v1/join", ``, 404},
		{"GET", "/metrics", ``, 404},
		{"GET", "/v1/status", ``, 404},
	} {
		r, err := http.NewRequest(c.method, "https://"+p.address+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != c.want {
			t.Errorf("%s %s: %d %s", c.method, c.path, response.StatusCode, body)
		}
	}
	if text := p.log.text(); slices.ContainsFunc([]string{"PRIVATE", "Bearer"}, func(w string) bool { return strings.Contains(text, w) }) {
		t.Error(text)
	}
}
