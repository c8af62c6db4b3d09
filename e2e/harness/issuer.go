package harness

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
)

// What the tests' gateway files say of the issuer.
const (
	IssuerURL = "https://auth.e2e.test"
	Audience  = "api"
)

// Issuer mints JWTs as a client's identity provider would. Its keys are new in
// every test.
type Issuer struct {
	EdDSA ed25519.PrivateKey
	RSA   *rsa.PrivateKey
	ECDSA *ecdsa.PrivateKey
}

// NewIssuer makes an issuer with one key of each kind that we accept.
func NewIssuer(t TB) *Issuer {
	t.Helper()
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatalf("issuer: %v", err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatalf("issuer: %v", err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("issuer: %v", err)
	}
	return &Issuer{EdDSA: edKey, RSA: rsaKey, ECDSA: ecKey}
}

// JWKS returns the issuer's public keys, kids "ed", "rsa" and "ec".
func (i *Issuer) JWKS() []byte {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: i.EdDSA.Public(), KeyID: "ed", Algorithm: "EdDSA", Use: "sig"},
		{Key: i.RSA.Public(), KeyID: "rsa", Algorithm: "RS256", Use: "sig"},
		{Key: i.ECDSA.Public(), KeyID: "ec", Algorithm: "ES256", Use: "sig"},
	}}
	data, _ := json.Marshal(set) // public keys of known kinds always encode
	return data
}

// Claims are those of a good token; With changes them.
func Claims(tenant, user string, permissions ...string) jwt.MapClaims {
	now := time.Now()
	return jwt.MapClaims{
		"iss": IssuerURL, "aud": Audience, "sub": user, "tenant": tenant, "permissions": permissions,
		"iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(),
	}
}

// With returns the claims with some replaced; nil takes a claim away.
func With(claims jwt.MapClaims, changes jwt.MapClaims) jwt.MapClaims {
	out := maps.Clone(claims)
	for name, value := range changes {
		if value == nil {
			delete(out, name)
			continue
		}
		out[name] = value
	}
	return out
}

// Token signs claims with the Ed25519 key, as a good issuer does.
func (i *Issuer) Token(t TB, claims jwt.MapClaims) string {
	t.Helper()
	return i.Sign(t, jwt.SigningMethodEdDSA, i.EdDSA, map[string]any{"kid": "ed", "typ": "at+jwt"}, claims)
}

// Sign signs claims with any key and header.
func (i *Issuer) Sign(t TB, method jwt.SigningMethod, key crypto.PrivateKey, header map[string]any, claims jwt.Claims) string {
	t.Helper()
	token := jwt.NewWithClaims(method, claims)
	maps.Copy(token.Header, header)
	signed, err := token.SignedString(key)
	if err != nil {
		t.Fatalf("sign: %v", err)
	}
	return signed
}

// Raw signs a header and payload that may be anything, as JSON text, with the
// Ed25519 key.
func (i *Issuer) Raw(header, payload string) string {
	encode := base64.RawURLEncoding.EncodeToString
	input := encode([]byte(header)) + "." + encode([]byte(payload))
	return input + "." + encode(ed25519.Sign(i.EdDSA, []byte(input)))
}
