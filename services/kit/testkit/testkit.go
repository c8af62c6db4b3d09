// Package testkit stands in for the gateway in tests of services: it signs
// identities and keeps a registry. Invariant: what it makes is what the real
// gateway makes, byte for byte where a service looks.
package testkit

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"tollgate/api/contract"
)

// Signer is a gateway's identity key.
type Signer struct {
	ID  string
	key ed25519.PrivateKey
}

// NewSigner makes a key.
func NewSigner(t testing.TB, id string) *Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &Signer{ID: id, key: key}
}

// JWKS returns the public keys of signers.
func JWKS(signers ...*Signer) []byte {
	keys := []map[string]string{}
	for _, s := range signers {
		public, _ := s.key.Public().(ed25519.PublicKey)
		keys = append(keys, map[string]string{
			"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": s.ID,
			"x": base64.RawURLEncoding.EncodeToString(public),
		})
	}
	data, _ := json.Marshal(map[string]any{"keys": keys}) // maps of strings always encode
	return data
}

// JWKSFile writes the public keys of signers to a file.
func JWKSFile(t testing.TB, signers ...*Signer) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "identity.jwks")
	if err := os.WriteFile(path, JWKS(signers...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Claims are those of a good token for a tenant, to be changed by a test.
func Claims(tenant string) jwt.MapClaims {
	now := time.Now()
	return jwt.MapClaims{
		"iss": "tollgate", "aud": []string{"orders"}, "sub": "ada", "tenant": tenant, "kind": "jwt",
		"permissions": []string{"orders:read"}, "jti": "1", "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
	}
}

// Sign returns a token; extra header fields replace those it would have.
func (s *Signer) Sign(t testing.TB, c jwt.MapClaims, header map[string]any) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, c)
	token.Header["kid"], token.Header["typ"] = s.ID, "at+jwt"
	for k, v := range header {
		token.Header[k] = v
	}
	signed, err := token.SignedString(s.key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// Token returns a good token for a tenant.
func (s *Signer) Token(t testing.TB, tenant string) string {
	t.Helper()
	return s.Sign(t, Claims(tenant), nil)
}

// Event is one call of the registry: "PUT order/a up" or "DELETE order/a".
type Event struct {
	Call    string
	Address string
	Bearer  string
	At      time.Time
}

// Registry is a control plane's registry of instances.
type Registry struct {
	URL string

	mu     sync.Mutex
	events []Event
	up     map[string]string // service/instance → address
}

// NewRegistry serves a registry until the test ends.
func NewRegistry(t testing.TB) *Registry {
	t.Helper()
	r := &Registry{up: map[string]string{}}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.URL = server.URL
	return r
}

// ServeHTTP is PUT and DELETE /v1/registry/{service}/{instance}.
func (r *Registry) ServeHTTP(_ http.ResponseWriter, req *http.Request) {
	var body struct{ Address, State string }
	data, _ := io.ReadAll(req.Body)
	_ = json.Unmarshal(data, &body) // a DELETE has none
	name := strings.TrimPrefix(req.URL.Path, "/v1/registry/")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, Event{
		Call: strings.TrimSpace(req.Method + " " + name + " " + body.State), Address: body.Address,
		Bearer: req.Header.Get("Authorization"), At: time.Now(),
	})
	delete(r.up, name)
	if body.State == contract.StateUp {
		r.up[name] = body.Address
	}
}

// Events returns what was called so far.
func (r *Registry) Events() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// Up returns the addresses of the instances of a service that take traffic.
func (r *Registry) Up(service string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var addresses []string
	for name, address := range r.up {
		if strings.HasPrefix(name, service+"/") {
			addresses = append(addresses, address)
		}
	}
	slices.Sort(addresses)
	return addresses
}

// Listen binds a free port of the loopback interface.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// Quiet is a logger for nobody.
func Quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// Runner lives until its context ends.
type Runner interface {
	Run(ctx context.Context) error
}

// Start runs r and returns what stops it and waits; the end of the test does
// the same.
func Start(t testing.TB, r Runner) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// Until waits for a condition, at most five seconds.
func Until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 5 s: %s", what)
		}
	}
}
