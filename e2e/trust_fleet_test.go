package e2e_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"tollgate/e2e/harness"
	"tollgate/internal/join"
	"tollgate/internal/peer"
	"tollgate/xds/trust"
)

const fleetGateway = `version: 1
listeners:
  - {name: http, address: "HTTP"}
  - {name: https, address: "HTTPS", tls: {certs: [{cert: file:edge.crt, key: file:edge.key}]}}
identity:
  api_keys: {header: x-api-key, store: file:keys.yaml}
tenants: [{name: acme}]
upstreams:
  - {name: up, endpoints: ["UP"]}
  - {name: order, discovery: {registry: order, allow: [127.0.0.0/8]}}
  - {name: user, discovery: {registry: user, allow: [127.0.0.0/8]}}
  - {name: far, discovery: {registry: far}}
routes:
  - {name: public, match: {path: {prefix: /public}}, auth: public, upstream: up}
  - {name: api, match: {path: {prefix: /api}}, auth: api_key, upstream: up, rate_limit: [{limit: 1000000, per: hour, on_error: closed}]}
  - {name: order, match: {path: {prefix: /order}}, auth: public, upstream: order}
  - {name: user, match: {path: {prefix: /user}}, auth: public, upstream: user}
`

// fleet is a gateway of single roles that know each other by certificates alone,
// each in a folder of its own as on a machine of its own.
type fleet struct {
	dir, state                    string // of the gateway file; of the control plane
	xds, extauthz, ratelimit      string // where they serve
	plane, authz, limiter, proxy  *harness.Process
	base, key                     string
	up                            *harness.Upstream
	life                          time.Duration // of certificates
	adminXDS, adminAuthz, adminRL string
}

func startFleet(t *testing.T, life time.Duration) *fleet {
	t.Helper()
	f := &fleet{dir: harness.TempDir(t), life: life, up: harness.NewUpstream(t, "up")}
	f.state = filepath.Join(f.dir, "state")
	for _, at := range []*string{&f.xds, &f.extauthz, &f.ratelimit, &f.base, &f.adminXDS, &f.adminAuthz, &f.adminRL} {
		*at = harness.FreeAddress(t)
	}
	cert, private := harness.Certificate(t, "edge.test")
	f.write(t, "edge.crt", cert)
	f.write(t, "edge.key", private)
	f.write(t, "gateway.yaml", strings.NewReplacer("UP", f.up.Address, `"HTTPS"`, harness.FreeAddress(t), `"HTTP"`, f.base).Replace(fleetGateway))
	out, errs, code := harness.Run(t, "keys", "create", "-f", f.file(), "--tenant", "acme", "--permission", "*")
	if code != 0 {
		t.Fatal(errs)
	}
	f.key = strings.TrimSpace(out)
	// A CA that everybody has heard of long ago.
	if _, err := trust.Open(trust.Config{Dir: f.state, Now: func() time.Time { return time.Now().Add(-3 * trust.Overlap) }}); err != nil {
		t.Fatal(err)
	}
	f.plane = f.startPlane(t)
	start := func(verb, name string, more ...string) *harness.Process {
		args := append([]string{verb}, more...)
		if verb == "edge" {
			args = append([]string{"envoy", "run"}, more...)
		}
		args = append(args, "--json", "--join", f.token(t, verb, name), "--xds-servers", f.xds, "--data-dir", filepath.Join(f.dir, name))
		return harness.Start(t, harness.Command{Name: name, Path: harness.Tollgate(t), Args: args})
	}
	f.authz = start("extauthz", "authz-1", "--extauthz-address", f.extauthz, "--admin-address", f.adminAuthz, "--keys", filepath.Join(f.dir, "keys.yaml"))
	f.limiter = start("ratelimit", "limiter-1", "--ratelimit-address", f.ratelimit, "--admin-address", f.adminRL)
	f.proxy = start("edge", "edge-1", "--admin-address", harness.FreeAddress(t), "--envoy-path", harness.EnvoyPath(t), "--envoy-concurrency", "1")
	for _, p := range []*harness.Process{f.authz, f.limiter, f.proxy} {
		p.AwaitReady(t, 30*time.Second)
	}
	harness.Eventually(t, 20*time.Second, "the fleet serves", func() error {
		return gives("http://"+f.base+"/api/x", withKey(f.key), http.StatusOK)
	})
	return f
}

func (f *fleet) startPlane(t *testing.T) *harness.Process {
	t.Helper()
	return harness.Start(t, harness.Command{Name: "xds", Path: harness.Tollgate(t), Args: []string{
		"xds", "--json", "-f", f.file(), "--data-dir", f.state, "--xds-address", f.xds, "--admin-address", f.adminXDS, "--certificate-ttl", f.life.String(),
		"--extauthz-servers", f.extauthz, "--ratelimit-servers", f.ratelimit,
	}}).AwaitReady(t, 20*time.Second)
}

func (f *fleet) file() string { return filepath.Join(f.dir, "gateway.yaml") }

func (f *fleet) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.WriteFile(path+"~", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+"~", path); err != nil {
		t.Fatal(err)
	}
}

// edit replaces words of the gateway file.
func (f *fleet) edit(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(f.file())
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "gateway.yaml", strings.Replace(string(text), from, to, 1))
}

func (f *fleet) token(t *testing.T, role, name string) string {
	t.Helper()
	out, errs, code := harness.Run(t, "join-token", "--data-dir", f.state, "--role", role, "--name", name)
	if code != 0 {
		t.Fatal(errs)
	}
	return strings.TrimSpace(out)
}

// member joins as a process does that then misbehaves; it never renews.
func (f *fleet) member(t *testing.T, role, name string) peer.Source {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	m, err := join.Open(ctx, join.Config{Dir: t.TempDir(), Token: f.token(t, role, name), Servers: []string{f.xds}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// dial meets a server with a certificate.
// dialled counts the clients of all tests.
var dialled atomic.Uint32

func dial(t *testing.T, address string, source peer.Source, serverRole string) *grpc.ClientConn {
	t.Helper()
	// From an address of its own: of one that is refused often not all is logged.
	n := dialled.Add(1)
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 77, byte(n>>8), byte(n))}}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(peer.Mutual{Source: source, Roles: []string{serverRole}}.Credentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// status is what the control plane says of its clients.
func (f *fleet) status(t *testing.T) string {
	t.Helper()
	out, errs, _ := harness.Run(t, "status", "--admin-address", f.adminXDS, "--data-dir", f.state)
	return out + errs
}

// saysInLog waits until a log says all words in one line.
func saysInLog(t *testing.T, p *harness.Process, words ...string) {
	t.Helper()
	harness.Eventually(t, 5*time.Second, fmt.Sprintf("%s logs %q", p.Name, words), func() error {
		for line := range strings.Lines(p.Log()) {
			if containsAll(line, words...) {
				return nil
			}
		}
		return fmt.Errorf("it says\n%s", p.Log())
	})
}

// unmoved fails the test when the fleet does not serve as it did.
func (f *fleet) unmoved(t *testing.T) {
	t.Helper()
	if err := gives("http://"+f.base+"/api/x", withKey(f.key), http.StatusOK); err != nil {
		t.Error(err)
	}
	if err := gives("http://"+f.base+"/api/x", nil, http.StatusUnauthorized); err != nil {
		t.Error(err)
	}
	for _, p := range []*harness.Process{f.plane, f.authz, f.limiter, f.proxy} {
		if !p.Alive() {
			t.Errorf("%s ended", p.Name)
		}
	}
}
