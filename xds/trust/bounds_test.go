package trust_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"tollgate/api/contract"
	"tollgate/internal/join"
	"tollgate/internal/peer"
	"tollgate/xds/trust"
)

// request is the body with which key asks for a certificate.
func request(t *testing.T, key *ecdsa.PrivateKey, edit func(der []byte)) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	edit(der)
	body, err := json.Marshal(join.Request{CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// TestKeysOfMembers: a member's key is ECDSA P-256, and whoever asks has it.
func TestKeysOfMembers(t *testing.T) {
	a, tokens := open(t, t.TempDir(), time.Now)
	door := (&trust.Door{Authority: a, Tokens: tokens, Log: slog.New(slog.DiscardHandler)}).Handler()
	large, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	asIs := func([]byte) {}
	for name, test := range map[string]struct {
		body []byte
		want int
	}{
		"P-256":             {request(t, newKey(t), asIs), http.StatusOK},
		"P-384":             {request(t, large, asIs), http.StatusServiceUnavailable},
		"another signature": {request(t, newKey(t), func(der []byte) { der[len(der)-1] ^= 1 }), http.StatusBadRequest},
		"no request":        {[]byte(`{"csr":""}`), http.StatusBadRequest},
		"too long":          {append([]byte(`{"csr":"`), bytes.Repeat([]byte("x"), 1<<20)...), http.StatusBadRequest},
	} {
		token, err := tokens.Make(contract.RoleEdge, "edge-1", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodPost, "/v1/join", bytes.NewReader(test.body))
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		door.ServeHTTP(w, r)
		if w.Code != test.want || strings.Contains(w.Body.String(), "BEGIN CERTIFICATE") != (test.want == http.StatusOK) {
			t.Errorf("%s: %d %.200s, want %d", name, w.Code, w.Body, test.want)
		}
		if name == "too long" && !strings.Contains(w.Body.String(), "too large") {
			t.Errorf("%s: %.200s", name, w.Body)
		}
	}
	if _, err := a.Issue(large.Public(), contract.RoleEdge, "edge-1"); err == nil {
		t.Error("a P-384 key got a certificate")
	}
}

// TestWhoShowsACertificate: one that has ended is nobody's, also on a connection
// that was made before, and so is one that came over an older TLS, whose
// handshake shows it to everybody on the way.
func TestWhoShowsACertificate(t *testing.T) {
	dir := t.TempDir()
	made := func(at time.Time) []*x509.Certificate {
		a, err := trust.Open(trust.Config{Dir: dir, TTL: time.Hour, Now: func() time.Time { return at }})
		if err != nil {
			t.Fatal(err)
		}
		chain, err := a.Issue(newKey(t).Public(), contract.RoleEdge, "edge-1")
		if err != nil {
			t.Fatal(err)
		}
		return chain
	}
	now := time.Now()
	for name, test := range map[string]struct {
		state *tls.ConnectionState
		known bool
	}{
		"plain text":     {nil, false},
		"no certificate": {&tls.ConnectionState{Version: tls.VersionTLS13}, false},
		"good":           {&tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: made(now)}, true},
		"ended":          {&tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: made(now.Add(-2 * time.Hour))}, false},
		"TLS 1.2":        {&tls.ConnectionState{Version: tls.VersionTLS12, PeerCertificates: made(now)}, false},
	} {
		r := httptest.NewRequest(http.MethodPost, "/v1/renew", nil)
		r.TLS = test.state
		who, known := trust.Member(r)
		if known != test.known || known && (who.Role != contract.RoleEdge || who.Name != "edge-1") {
			t.Errorf("%s: %+v, %v", name, who, known)
		}
	}
}

// TestMayNotRenew: a control plane signs for itself and gets nothing at the door.
func TestMayNotRenew(t *testing.T) {
	a, tokens := open(t, t.TempDir(), time.Now)
	door := (&trust.Door{Authority: a, Tokens: tokens, Log: slog.New(slog.DiscardHandler)}).Handler()
	for role, want := range map[string]int{contract.RoleEdge: http.StatusOK, contract.RoleXDS: http.StatusUnauthorized} {
		chain, err := a.Issue(newKey(t).Public(), role, "one")
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodPost, "/v1/renew", bytes.NewReader(request(t, newKey(t), func([]byte) {})))
		r.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: chain}
		w := httptest.NewRecorder()
		door.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s: %d %s, want %d", role, w.Code, w.Body, want)
		}
	}
}

// operators writes a CA of the operator's that ends then, and its key.
func operators(t *testing.T, ends time.Time) string {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "own"}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: ends,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "own.pem")
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestNoCertificateOutlivesItsCA: members would show what nobody believes.
func TestNoCertificateOutlivesItsCA(t *testing.T) {
	ends := time.Now().Add(time.Hour).Truncate(time.Second).UTC()
	file := operators(t, ends)
	a, err := trust.Open(trust.Config{Dir: t.TempDir(), CertFile: file, KeyFile: file, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	chain, err := a.Issue(newKey(t).Public(), contract.RoleEdge, "edge-1")
	if err != nil || !chain[0].NotAfter.Equal(ends) {
		t.Errorf("good until %v, its CA until %s: %v", chain, ends, err)
	}
	for mode, taken := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: false, 0o620: false, 0o604: false} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := trust.Open(trust.Config{Dir: t.TempDir(), CertFile: file, KeyFile: file, Now: time.Now}); (err == nil) != taken {
			t.Errorf("key of mode %o: %v", mode, err)
		}
	}
}

// TestTokenOfAnotherKind: what the tokens' key signed for something else, in
// another way, or without a time opens nothing here.
func TestTokenOfAnotherKind(t *testing.T) {
	dir := t.TempDir()
	_, tokens := open(t, dir, time.Now)
	key, err := os.ReadFile(filepath.Join(dir, "join.key"))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		method jwt.SigningMethod
		edit   func(*join.Claims)
		taken  bool
	}{
		"as it is made":    {jwt.SigningMethodHS256, func(*join.Claims) {}, true},
		"another audience": {jwt.SigningMethodHS256, func(c *join.Claims) { c.Audience = jwt.ClaimStrings{"another"} }, false},
		"no audience":      {jwt.SigningMethodHS256, func(c *join.Claims) { c.Audience = nil }, false},
		"another method":   {jwt.SigningMethodHS512, func(*join.Claims) {}, false},
		"made at no time":  {jwt.SigningMethodHS256, func(c *join.Claims) { c.IssuedAt = nil }, false},
	} {
		claims := join.Claims{
			RegisteredClaims: jwt.RegisteredClaims{
				ID: uuid.NewString(), Audience: jwt.ClaimStrings{join.Audience},
				IssuedAt: jwt.NewNumericDate(time.Now()), ExpiresAt: jwt.NewNumericDate(time.Now().Add(time.Hour)),
			},
			Role: contract.RoleEdge, Name: "edge-1",
		}
		test.edit(&claims)
		token, err := jwt.NewWithClaims(test.method, claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := tokens.Redeem(token, newKey(t).Public()); (err == nil) != test.taken {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRemovedAtOnce: whoever removes a member is told so when its certificate no
// longer counts here, not within the second in which the disk is looked at again.
func TestRemovedAtOnce(t *testing.T) {
	at := time.Now()
	a, _ := open(t, t.TempDir(), func() time.Time { return at })
	if _, err := a.Members().Remove(contract.RoleEdge, "edge-1", true); err != nil {
		t.Fatal(err)
	}
	if err := a.Members().Refuse(peer.Identity{Role: contract.RoleEdge, Name: "edge-1", NotBefore: at}); !errors.Is(err, trust.ErrRemoved) {
		t.Errorf("%v, want a refusal", err)
	}
}
