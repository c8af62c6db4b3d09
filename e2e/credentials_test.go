package e2e_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"tollgate/e2e/harness"
)

const credentialGateway = head + `
upstreams:
  - {name: up, endpoints: ["${up}"]}
  - {name: copy, endpoints: ["${copy}"]}
  - {name: modern, endpoints: ["${modern}"], protocol: http2}
routes:
  - {name: pub, match: {path: {prefix: /pub}}, auth: public, upstream: up}
  - {name: pub-forward, match: {path: {prefix: /pub-forward}}, auth: public, forward: true, upstream: up}
  - {name: api, match: {path: {prefix: /api}}, auth: ` + either + `, upstream: up}
  - {name: api-forward, match: {path: {prefix: /api-forward}}, auth: ` + either + `, forward: true, upstream: up}
  - {name: twice, match: {path: {prefix: /twice}}, auth: ` + either + `, upstream: up, mirror: {upstream: copy}}
  - {name: twice-forward, match: {path: {prefix: /twice-forward}}, auth: ` + either + `, forward: true, upstream: up, mirror: {upstream: copy}}
  - {name: twice-pub, match: {path: {prefix: /twice-pub}}, auth: public, forward: true, upstream: up, mirror: {upstream: copy}}
  - {name: modern, match: {path: {prefix: /modern}}, auth: ` + either + `, upstream: modern}
  - {name: modern-pub, match: {path: {prefix: /modern-pub}}, auth: public, upstream: modern}
`

// TestCredentialsStay: a credential goes upstream only where the route says so,
// on public routes too, and to a mirror never.
func TestCredentialsStay(t *testing.T) {
	ups := harness.NewUpstreams(t, "up", "copy")
	trailers := make(chan http.Header, 1)
	s := harness.NewStack(t, harness.Options{
		Gateway: credentialGateway, Keys: []harness.Key{{Name: "key", Tenant: "acme", Owner: "bob", Permissions: []string{"*"}}},
		Vars: map[string]string{"up": ups[0].Address, "copy": ups[1].Address, "modern": trailerUpstream(t, trailers)},
	})
	key := withKey(s.Secrets["key"])
	everything := map[string]string{
		"authorization": "Bearer secret", "proxy-authorization": "Basic secret", "x-api-key": "secret", "x-auth-token": "forged",
		"x-envoy-upstream-stream-duration-ms": "1",
	}
	for name, c := range map[string]struct {
		path     string
		header   map[string]string
		passes   []string // of what was sent
		audience string   // of the token
		mirrored string   // audience of the mirror's token; "-": a copy without one
	}{
		"public":           {path: "/pub", header: everything},
		"public, forward":  {path: "/pub-forward", header: everything, passes: []string{"authorization", "x-api-key"}},
		"private":          {path: "/api", header: key, audience: "up"},
		"private, forward": {path: "/api-forward", header: key, passes: []string{"x-api-key"}, audience: "up"},
		"mirror":           {path: "/twice", header: key, audience: "up", mirrored: "copy"},
		"mirror, forward":  {path: "/twice-forward", header: key, passes: []string{"x-api-key"}, audience: "up", mirrored: "copy"},
		"public mirror":    {path: "/twice-pub", header: everything, passes: []string{"authorization", "x-api-key"}, mirrored: "-"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, u := range ups {
				u.Take()
			}
			if a := get(t, s, c.path, c.header); a.Status != okOnly {
				t.Fatalf("%d %s", a.Status, a.Body)
			}
			seen := one(t, ups[0])
			for header, sent := range c.header {
				if got := seen.Header.Get(header); (got == sent) != slices.Contains(c.passes, header) {
					t.Errorf("%s: the upstream sees %q", header, got)
				}
			}
			wantAudience(t, seen, c.audience)
			if seen.Header.Get("mirror-token") != "" {
				t.Error("the primary sees the mirror's token")
			}
			if c.mirrored == "" {
				return
			}
			copied := one(t, ups[1])
			for header := range c.header {
				if got := copied.Header.Get(header); got != "" && header != "x-auth-token" {
					t.Errorf("%s: the mirror sees %q", header, got)
				}
			}
			wantAudience(t, copied, strings.TrimPrefix(c.mirrored, "-"))
		})
	}
	t.Run("trailers", func(t *testing.T) { trailersAreClean(t, s, trailers) })
}

// one waits for the one request that an upstream gets.
func one(t *testing.T, u *harness.Upstream) harness.Seen {
	t.Helper()
	var seen []harness.Seen
	harness.Eventually(t, 5*time.Second, u.Name+" gets a request", func() error {
		if seen = append(seen, u.Take()...); len(seen) != 1 {
			return fmt.Errorf("it has %d", len(seen))
		}
		return nil
	})
	return seen[0]
}

// wantAudience looks for whom the identity token is; "" wants none.
func wantAudience(t *testing.T, seen harness.Seen, audience string) {
	t.Helper()
	lines := seen.Header.Values("x-auth-token")
	if audience == "" {
		if len(lines) != 0 {
			t.Errorf("an identity token where none belongs: %d lines", len(lines))
		}
		return
	}
	if len(lines) != 1 {
		t.Fatalf("%d identity tokens", len(lines))
	}
	part := strings.Split(lines[0], ".")
	if len(part) != 3 {
		t.Fatalf("not a token: %d parts", len(part))
	}
	var claims struct {
		Audience []string `json:"aud"`
		Subject  string   `json:"sub"`
	}
	data, err := base64.RawURLEncoding.DecodeString(part[1])
	if err == nil {
		err = json.Unmarshal(data, &claims)
	}
	if err != nil || !slices.Equal(claims.Audience, []string{audience}) || claims.Subject != "bob" {
		t.Errorf("%+v, %v; want audience %s", claims, err, audience)
	}
}

// trailerUpstream speaks HTTP/2 and hands on the trailers of each request.
func trailerUpstream(t *testing.T, to chan<- http.Header) string {
	t.Helper()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Protocols: &protocols, ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		to <- r.Trailer
	})}
	ended := make(chan struct{})
	go func() { _ = server.Serve(listener); close(ended) }()
	t.Cleanup(func() { _ = server.Close(); <-ended })
	return listener.Addr().String()
}

// trailersAreClean: what is stripped from headers cannot come in behind them.
func trailersAreClean(t *testing.T, s *harness.Stack, trailers <-chan http.Header) {
	t.Helper()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{Protocols: &protocols}}
	defer client.CloseIdleConnections()
	for _, path := range []string{"/modern", "/modern-pub"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL(path), io.NopCloser(strings.NewReader("body")))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("x-api-key", s.Secrets["key"])
		request.Trailer = http.Header{
			"X-Auth-Tenant": {"evil"}, "X-Auth-Token": {"evil"}, "X-Tenant-Id": {"evil"}, "X-Forwarded-Host": {"evil"}, "X-Envoy-Original-Path": {"evil"},
			"Proxy-Authorization": {"evil"}, "X-Api-Key": {"evil"}, "X-Checksum": {"kept"},
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != okOnly {
			t.Fatalf("%s: %d", path, response.StatusCode)
		}
		got := <-trailers
		maps.DeleteFunc(got, func(_ string, lines []string) bool { return len(lines) == 0 }) // announced, but never sent
		if len(got) != 1 || got.Get("x-checksum") != "kept" {
			t.Errorf("%s: the upstream gets the trailers %v", path, got)
		}
	}
}

const streamGateway = head + `
upstreams:
  - {name: up, endpoints: ["${up}"]}
  - {name: greeter, endpoints: ["${greeter}"], protocol: grpc}
routes:
  - {name: live, match: {path: {prefix: /live}}, auth: ` + either + `, websocket: true, timeout: none, upstream: up}
  - {name: short, match: {path: {prefix: /short}}, auth: public, websocket: true, timeout: none, max_stream: 2s, upstream: up}
  - {name: watch, match: {path: {prefix: /grpc.health.v1.Health}}, auth: ` + either + `, timeout: none, upstream: greeter}
`

// TestStreamsEnd: a stream ends with the credential that opened it, or when its
// route says so.
func TestStreamsEnd(t *testing.T) {
	up := harness.NewUpstream(t, "up")
	s := harness.NewStack(t, harness.Options{
		Gateway: streamGateway, Vars: map[string]string{"up": up.Address, "greeter": greeter(t, "one")},
	})
	up.Handle(echoes)
	const life = 3 * time.Second
	token := func(life time.Duration) map[string]string {
		claims := harness.Claims("acme", "ann", "*")
		return withToken(s.Issuer.Token(t, harness.With(claims, jwt.MapClaims{"exp": float64(time.Now().Add(life).UnixMilli()) / 1000})))
	}
	key := func(t *testing.T) (map[string]string, time.Duration) {
		const life = 4 * time.Second
		created := time.Now()
		out, errs, code := harness.Run(t, "keys", "create", "-f", s.File, "--tenant", "acme", "--expires", life.String(), "--json")
		if code != 0 {
			t.Fatal(out, errs)
		}
		awaitStatus(t, s, "/live", withKey(field(t, out, "key")), okOnly, 3*time.Second)
		return withKey(field(t, out, "key")), life - time.Since(created)
	}
	t.Run("websocket, a token's", func(t *testing.T) {
		t.Parallel()
		wantEnd(t, life, websocketLife(t, s, "/live", token(life)))
	})
	t.Run("websocket, a key's", func(t *testing.T) {
		t.Parallel()
		header, left := key(t)
		wantEnd(t, left, websocketLife(t, s, "/live", header))
	})
	t.Run("websocket, the route's", func(t *testing.T) {
		t.Parallel()
		wantEnd(t, 2*time.Second, websocketLife(t, s, "/short", nil))
	})
	t.Run("websocket, none soon", func(t *testing.T) {
		t.Parallel()
		wantEnd(t, 0, websocketLife(t, s, "/live", token(time.Minute)))
	})
	t.Run("gRPC, a token's", func(t *testing.T) {
		t.Parallel()
		wantEnd(t, life, watchLife(t, s, token(life)))
	})
}

// wantEnd allows for a slow machine, and for expiry's whole seconds.
func wantEnd(t *testing.T, want, got time.Duration) {
	t.Helper()
	switch {
	case want == 0 && got != 0:
		t.Errorf("it ended after %v", got)
	case want > 0 && (got == 0 || got < want-1200*time.Millisecond || got > want+2*time.Second):
		t.Errorf("it ended after %v, want %v", got, want)
	}
}

// echoes accepts an upgrade and sends back what comes.
func echoes(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("upgrade") == "" {
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
	_, _ = io.Copy(conn, conn)
}

// websocketLife speaks on an upgraded connection until it ends; 0 means that it
// lived on.
func websocketLife(t *testing.T, s *harness.Stack, path string, header map[string]string) time.Duration {
	t.Helper()
	const patience = 6 * time.Second
	conn, err := net.DialTimeout("tcp", s.Address(t, "http"), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	start := time.Now()
	_ = conn.SetDeadline(start.Add(patience + 5*time.Second))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGVzdA==\r\nSec-WebSocket-Version: 13\r\n", path)
	for name, value := range header {
		fmt.Fprintf(conn, "%s: %s\r\n", name, value)
	}
	fmt.Fprint(conn, "\r\n")
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%d", response.StatusCode)
	}
	echo := make([]byte, 1)
	for time.Since(start) < patience {
		if _, err := conn.Write([]byte("x")); err != nil {
			return time.Since(start)
		}
		if _, err := io.ReadFull(reader, echo); err != nil {
			return time.Since(start)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return 0
}

// watchLife holds a stream of gRPC open until it ends.
func watchLife(t *testing.T, s *harness.Stack, header map[string]string) time.Duration {
	t.Helper()
	conn, err := grpc.NewClient(s.Address(t, "http"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(metadata.NewOutgoingContext(t.Context(), metadata.New(header)), 15*time.Second)
	defer cancel()
	start := time.Now()
	stream, err := healthv1.NewHealthClient(conn).Watch(ctx, &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return 0
	}
	return time.Since(start)
}
