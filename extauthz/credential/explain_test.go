package credential_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"tollgate/extauthz/credential"
	"tollgate/internal/jwks"
)

// TestExplain: the operator is told the first thing that is wrong, and what is
// good is not blamed; nothing of the token is quoted.
func TestExplain(t *testing.T) {
	public, key, _ := ed25519.GenerateKey(rand.Reader)
	_, stranger, _ := ed25519.GenerateKey(rand.Reader)
	source := credential.StaticKeys(jwks.NewSet(jwks.Key{ID: "k", Alg: jwks.EdDSA, Public: public}))
	v := credential.NewVerifier(map[string]*credential.Issuer{"platform": credential.NewIssuer(platform(), nil, source)}, nil, credential.NewBulkhead(1))
	header := func(name, value string) map[string]any { return map[string]any{"kid": "k", name: value} }
	kid := header("kid", "k")
	for name, c := range map[string]struct {
		token, want string
	}{
		"typ":                     {sign(t, key, header("typ", "refresh+jwt"), claims(nil)), "typ: not one of issuer platform"},
		"a media type of one":     {sign(t, key, header("typ", "application/AT+JWT"), claims(jwt.MapClaims{"sub": nil})), "user: it names nobody"},
		"audience":                {sign(t, key, kid, claims(jwt.MapClaims{"aud": "secret-audience"})), "audience: for none of issuer platform"},
		"iss":                     {sign(t, key, kid, claims(jwt.MapClaims{"iss": "https://secret.test"})), "issuer: no issuer of the route has its iss"},
		"exp":                     {sign(t, key, kid, claims(jwt.MapClaims{"exp": "soon"})), "time: exp is missing, or exp, iat or nbf is no number of seconds"},
		"a century":               {sign(t, key, kid, claims(jwt.MapClaims{"exp": start.Unix() + 3153600000})), "time: it lives longer than max_lifetime of issuer platform"},
		"a century, forged":       {sign(t, stranger, kid, claims(jwt.MapClaims{"exp": start.Unix() + 3153600000})), "time: it lives longer than max_lifetime of issuer platform"},
		"not yet":                 {sign(t, key, kid, claims(jwt.MapClaims{"nbf": start.Unix() + 40})), "time: not valid yet, by iat or nbf"},
		"not yet, but within 30s": {sign(t, key, kid, claims(jwt.MapClaims{"nbf": start.Unix() + 20, "sub": nil})), "user: it names nobody"},
		"kid":                     {sign(t, key, header("kid", "secret-kid"), claims(nil)), "signature: issuer platform has no key of its kid"},
		"forged":                  {sign(t, stranger, kid, claims(nil)), "signature: not of the key that it names, of issuer platform"},
		"no token":                {"secret", "token does not have three parts"},
		"critical":                {sign(t, key, header("crit", "x"), claims(nil)), "token header names critical extensions"},
	} {
		got := v.Explain([]string{"platform"}, c.token, start)
		if got != c.want || strings.Contains(got, "secret") {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if _, reason := v.Token(t.Context(), []string{"platform"}, c.token, start); reason == "" {
			t.Errorf("%s: it is admitted", name)
		}
	}
}
