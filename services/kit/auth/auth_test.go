package auth_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"

	"tollgate/internal/identity"
	"tollgate/services/kit/auth"
	"tollgate/services/kit/fault"
	"tollgate/services/kit/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func verifier(t testing.TB, jwks string) *auth.Verifier {
	t.Helper()
	v, err := auth.New(auth.Config{JWKS: jwks, Audiences: []string{"orders", "users"}, Log: testkit.Quiet()})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func reason(err error) string {
	if err == nil {
		return "ok"
	}
	return fault.Of(err).Reason
}

func age(c jwt.MapClaims, by time.Duration) {
	issued := time.Now().Add(-by)
	c["iat"], c["exp"] = issued.Unix(), issued.Add(time.Minute).Unix()
}

// What the gateway mints is taken.
func TestGatewayToken(t *testing.T) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := identity.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	set, err := signer.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "identity.jwks")
	if err := os.WriteFile(path, set, 0o600); err != nil {
		t.Fatal(err)
	}
	token, err := signer.Mint(identity.Claims{Subject: "key:7", Tenant: "acme", Kind: "api_key", Audiences: []string{"orders-v1", "orders"}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ctx, err := verifier(t, path).Authenticate(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if c := auth.From(ctx); c.Tenant != "acme" || c.User != "key:7" || c.Kind != "api_key" {
		t.Errorf("caller %+v", c)
	}
}

func TestAuthenticate(t *testing.T) {
	signer, stranger := testkit.NewSigner(t, "k1"), testkit.NewSigner(t, "k2")
	impostor := testkit.NewSigner(t, "k1")
	v := verifier(t, testkit.JWKSFile(t, signer))
	claims := func(change func(jwt.MapClaims)) string {
		c := testkit.Claims("acme")
		change(c)
		return signer.Sign(t, c, nil)
	}
	good := signer.Token(t, "acme")
	parts := strings.Split(good, ".")
	hs256 := func() string {
		token := jwt.NewWithClaims(jwt.SigningMethodHS256, testkit.Claims("acme"))
		token.Header["kid"], token.Header["typ"] = "k1", "at+jwt"
		signed, err := token.SignedString(testkit.JWKS(signer))
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"at+jwt","kid":"k1"}`)) + "." + parts[1] + "."
	aged := testkit.Claims("acme")
	age(aged, 70*time.Second)
	old := impostor.Sign(t, aged, nil)
	for _, tt := range []struct{ name, token, want string }{
		{"good", good, "ok"},
		{"second audience", claims(func(c jwt.MapClaims) { c["aud"] = []string{"x", "users"} }), "ok"},
		{"audience as a string", claims(func(c jwt.MapClaims) { c["aud"] = "orders" }), "invalid_token"},
		{"empty", "", "invalid_token"},
		{"not a token", "x", "invalid_token"},
		{"huge", strings.Repeat("a", 9000), "invalid_token"},
		{"alg none", none, "invalid_token"},
		{"alg HS256 with the public key", hs256(), "invalid_token"},
		{"unknown key", stranger.Token(t, "acme"), "invalid_token"},
		{"right key id, wrong key", impostor.Token(t, "acme"), "invalid_token"},
		{"no key id", signer.Sign(t, testkit.Claims("acme"), map[string]any{"kid": 7}), "invalid_token"},
		{"another type", signer.Sign(t, testkit.Claims("acme"), map[string]any{"typ": "JWT"}), "invalid_token"},
		{"crit", signer.Sign(t, testkit.Claims("acme"), map[string]any{"crit": []string{"b64"}}), "invalid_token"},
		{"tampered payload", parts[0] + "." + parts[1] + "A." + parts[2], "invalid_token"},
		{"no signature", parts[0] + "." + parts[1] + ".", "invalid_token"},
		{"other audience", claims(func(c jwt.MapClaims) { c["aud"] = []string{"order"} }), "invalid_token"},
		{"no audience", claims(func(c jwt.MapClaims) { delete(c, "aud") }), "invalid_token"},
		{"other issuer", claims(func(c jwt.MapClaims) { c["iss"] = "https://auth.tollgate.local" }), "invalid_token"},
		{"no expiry", claims(func(c jwt.MapClaims) { delete(c, "exp") }), "invalid_token"},
		{"expired", claims(func(c jwt.MapClaims) { age(c, 70*time.Second) }), "expired_token"},
		{"expired and forged", old, "invalid_token"},
		{"expired and for others", claims(func(c jwt.MapClaims) { age(c, 70*time.Second); c["aud"] = []string{"x"} }), "invalid_token"},
		{"from the future", claims(func(c jwt.MapClaims) { age(c, -time.Minute) }), "invalid_token"},
		{"long-lived", claims(func(c jwt.MapClaims) { c["exp"] = time.Now().Add(time.Hour).Unix() }), "invalid_token"},
		{"no tenant", claims(func(c jwt.MapClaims) { delete(c, "tenant") }), "unknown_tenant"},
		{"tenant of no value", claims(func(c jwt.MapClaims) { c["tenant"] = "(none)" }), "unknown_tenant"},
		{"tenant of another type", claims(func(c jwt.MapClaims) { c["tenant"] = []string{"acme"} }), "invalid_token"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, err := v.Authenticate(t.Context(), tt.token)
			if got := reason(err); got != tt.want {
				t.Fatalf("reason %q, want %q (%v)", got, tt.want, err)
			}
			if err != nil {
				return
			}
			caller := auth.From(ctx)
			if caller.Tenant != "acme" || caller.User != "ada" || caller.Kind != "jwt" || len(caller.Permissions) != 1 || auth.Token(ctx) != tt.token {
				t.Errorf("caller %+v", caller)
			}
		})
	}
	if auth.From(t.Context()).Tenant != "" || auth.Token(t.Context()) != "" {
		t.Error("a context without a caller has one")
	}
}

// A new key is taken up on first use; a source that is broken leaves the old
// ones, and is not asked for every bad token.
func TestKeysRotate(t *testing.T) {
	old, fresh := testkit.NewSigner(t, "old"), testkit.NewSigner(t, "new")
	var set atomic.Pointer[[]byte]
	var reads atomic.Int32
	serve := func(b []byte) { set.Store(&b) }
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reads.Add(1)
		_, _ = w.Write(*set.Load())
	}))
	defer server.Close()
	serve(testkit.JWKS(old))
	v := verifier(t, server.URL)
	check := func(token, want string) {
		t.Helper()
		if _, err := v.Authenticate(t.Context(), token); reason(err) != want {
			t.Fatalf("reason %q, want %q (%v)", reason(err), want, err)
		}
	}
	check(old.Token(t, "acme"), "ok")
	for range 100 {
		check(fresh.Token(t, "acme"), "invalid_token")
	}
	if n := reads.Load(); n != 1 {
		t.Errorf("%d reads for 100 unknown keys, want the first alone", n)
	}
	serve([]byte("<html>"))
	time.Sleep(1100 * time.Millisecond)
	check(fresh.Token(t, "acme"), "invalid_token")
	check(old.Token(t, "acme"), "ok")
	serve(testkit.JWKS(fresh))
	time.Sleep(1100 * time.Millisecond)
	check(fresh.Token(t, "acme"), "ok")
	check(old.Token(t, "acme"), "invalid_token")
}

func TestKeysNotThere(t *testing.T) {
	signer := testkit.NewSigner(t, "k1")
	path := filepath.Join(t.TempDir(), "late.jwks")
	v := verifier(t, path)
	if _, err := v.Authenticate(t.Context(), signer.Token(t, "acme")); reason(err) != "upstream_unavailable" {
		t.Fatalf("reason %q, want upstream_unavailable: the client is not at fault", reason(err))
	}
	testkit.Start(t, v)
	if err := os.WriteFile(path, testkit.JWKS(signer), 0o600); err != nil {
		t.Fatal(err)
	}
	testkit.Until(t, "keys read", func() bool {
		_, err := v.Authenticate(t.Context(), signer.Token(t, "acme"))
		return err == nil
	})
}

func TestKeySets(t *testing.T) {
	signer := testkit.NewSigner(t, "k1")
	good := string(testkit.JWKS(signer))
	for _, tt := range []struct{ name, set, want string }{
		{"others beside it", strings.Replace(good, `[`, `[{"kty":"RSA","kid":"r","n":"AQAB","e":"AQAB"},{"kty":"OKP","crv":"Ed25519","x":"AA"},`, 1), "ok"},
		{"empty set", `{"keys":[]}`, "upstream_unavailable"},
		{"for encryption", strings.Replace(good, `"sig"`, `"enc"`, 1), "upstream_unavailable"},
		{"too large", good + strings.Repeat(" ", 70<<10), "upstream_unavailable"},
		{"not JSON", "BEGIN PUBLIC KEY", "upstream_unavailable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "jwks")
			if err := os.WriteFile(path, []byte(tt.set), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := verifier(t, path).Authenticate(t.Context(), signer.Token(t, "acme")); reason(err) != tt.want {
				t.Errorf("reason %q, want %q (%v)", reason(err), tt.want, err)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	for _, cfg := range []auth.Config{
		{Audiences: []string{"orders"}},
		{JWKS: "keys"},
		{JWKS: "keys", Audiences: []string{""}},
		{JWKS: "http://10.0.0.1/jwks", Audiences: []string{"orders"}},
		{JWKS: "ftp://localhost/jwks", Audiences: []string{"orders"}},
	} {
		if _, err := auth.New(cfg); err == nil {
			t.Errorf("%+v: no error", cfg)
		}
	}
}

func FuzzAuthenticate(f *testing.F) {
	signer := testkit.NewSigner(f, "k1")
	v := verifier(f, testkit.JWKSFile(f, signer))
	good := signer.Token(f, "acme")
	for _, s := range []string{good, "", ".", "..", "a.b.c", strings.Repeat(".", 1000), good + "=", good + "\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		ctx, err := v.Authenticate(t.Context(), token)
		if err == nil && (token != good || auth.From(ctx).Tenant != "acme") {
			t.Errorf("admitted %q", token)
		}
	})
}
