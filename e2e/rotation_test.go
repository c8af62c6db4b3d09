package e2e_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
)

const rotationGateway = `version: 1
listeners:
  - {name: http, address: "${http}"}
identity:
  issuers:
    - {name: platform, issuer: "https://auth.e2e.test", audiences: [api], jwks: {url: "${jwks}"}}
tenants: [{name: acme}]
upstreams:
  - {name: up, endpoints: ["${up}"]}
routes:
  - {name: api, match: {path: {prefix: /}}, auth: {jwt: platform}, upstream: up}
`

// provider is an identity provider that changes its key: from one moment on it
// publishes the new one alone and signs with it.
type provider struct {
	*httptest.Server
	issuer  *harness.Issuer
	fetches atomic.Int64
	dialled atomic.Int64

	mu    sync.Mutex
	n     int
	kid   string
	key   ed25519.PrivateKey
	jwks  []byte
	delay time.Duration
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{issuer: harness.NewIssuer(t)}
	p.rotate(t)
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p.fetches.Add(1)
		p.mu.Lock()
		jwks, delay := p.jwks, p.delay
		p.mu.Unlock()
		time.Sleep(delay)
		_, _ = w.Write(jwks)
	}))
	p.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			p.dialled.Add(1)
		}
	}
	p.Start()
	t.Cleanup(p.Close)
	return p
}

func (p *provider) rotate(t *testing.T) {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
	p.kid, p.key = fmt.Sprintf("key-%d", p.n), key
	if p.jwks, err = json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: public, KeyID: p.kid, Algorithm: "EdDSA", Use: "sig"}}}); err != nil {
		t.Fatal(err)
	}
}

// token is a new one of the key of this moment, or of a kid that nobody has.
func (p *provider) token(t harness.TB, kid string) string {
	p.mu.Lock()
	key := p.key
	if kid == "" {
		kid = p.kid
	}
	p.mu.Unlock()
	return p.issuer.Sign(t, jwt.SigningMethodEdDSA, key, map[string]any{"kid": kid, "typ": "at+jwt"}, harness.Claims("acme", "ann", "*"))
}

// TestKeyRotation: an issuer's new key logs nobody out, not even during a flood
// of unknown keys, which costs the issuer five fetches a second over one
// connection, and without an issuer nobody is called a liar.
func TestKeyRotation(t *testing.T) {
	p := newProvider(t)
	p.delay = 40 * time.Millisecond
	up := harness.NewUpstream(t, "up")
	s := harness.NewStack(t, harness.Options{Gateway: rotationGateway, Vars: map[string]string{"up": up.Address, "jwks": p.URL + "/jwks"}})
	awaitStatusThrough(t, s, "/x", withToken(p.token(t, "")), okOnly)
	fresh := func(rate int, kid string) *traffic.Running {
		return traffic.Start(traffic.Load{Rate: rate, Duration: time.Minute, Request: traffic.Request{URL: s.URL("/x"), Vary: func(_ int, r *http.Request) {
			r.Header.Set("authorization", "Bearer "+p.token(t, kid))
		}}})
	}
	t.Run("0 failed while the key changes", func(t *testing.T) {
		before := p.fetches.Load()
		load := fresh(60, "")
		for range 3 {
			time.Sleep(700 * time.Millisecond)
			p.rotate(t)
		}
		time.Sleep(700 * time.Millisecond)
		clean(t, "rotating", load.Stop(), okOnly)
		if n := p.fetches.Load() - before; n < 3 || n > 6 {
			t.Errorf("%d fetches for 3 changes", n)
		}
	})
	t.Run("unknown keys", func(t *testing.T) {
		before, dialled, reached, start := p.fetches.Load(), p.dialled.Load(), up.Count(), time.Now()
		honest, flood := fresh(40, ""), fresh(100, "nobody")
		for range 2 {
			time.Sleep(700 * time.Millisecond)
			p.rotate(t)
		}
		time.Sleep(700 * time.Millisecond)
		forged := flood.Stop()
		clean(t, "honest", honest.Stop(), okOnly)
		if n := forged.Not(http.StatusUnauthorized, http.StatusServiceUnavailable, http.StatusTooManyRequests); n != 0 {
			t.Errorf("%s", forged)
		}
		if n, took := p.fetches.Load()-before, time.Since(start); n > int64(took/(200*time.Millisecond))+3 {
			t.Errorf("%d fetches in %v", n, took)
		}
		if n := p.dialled.Load() - dialled; n > 2 {
			t.Errorf("%d connections", n)
		}
		if up.Count() == reached {
			t.Error("nobody honest got through")
		}
	})
	t.Run("no issuer", func(t *testing.T) {
		known := withToken(p.token(t, ""))
		p.Close()
		p.rotate(t)
		if a := get(t, s, "/x", known); a.Status != okOnly {
			t.Errorf("a token of the key that is known: %d", a.Status)
		}
		wantEnvelope(t, get(t, s, "/x", withToken(p.token(t, ""))), http.StatusServiceUnavailable, "UNAVAILABLE", "issuer_unavailable")
	})
}
