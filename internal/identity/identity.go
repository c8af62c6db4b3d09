// Package identity is the one verified identity that the gateway hands to
// services: a short-lived signed token. Invariant: a token that Verify accepts
// was minted by the holder of the key, for this audience, less than Lifetime ago.
package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"tollgate/internal/jwks"
)

const (
	// Issuer is the "iss" of every token.
	Issuer = "tollgate"
	// Lifetime of a token.
	Lifetime = 60 * time.Second
	// Leeway between the clocks of gateway and service.
	Leeway = 5 * time.Second

	typ = "at+jwt"
)

// Claims say who calls.
type Claims struct {
	Subject, Tenant string
	Kind            string // jwt or api_key
	Permissions     []string
	Audiences       []string
	ID              string    // set by Mint
	IssuedAt        time.Time // set by Mint
	Expires         time.Time // set by Mint
}

type payload struct {
	Issuer      string   `json:"iss"`
	Audiences   []string `json:"aud"`
	Subject     string   `json:"sub"`
	Tenant      string   `json:"tenant"`
	Kind        string   `json:"kind"`
	Permissions []string `json:"permissions"`
	ID          string   `json:"jti"`
	IssuedAt    int64    `json:"iat"`
	Expires     int64    `json:"exp"`
}

// Signer mints tokens.
type Signer struct {
	key    ed25519.PrivateKey
	header string
	kid    string
}

// NewSigner returns a signer; the key's id is derived from the key.
func NewSigner(key ed25519.PrivateKey) (*Signer, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, errors.New("identity key is not an Ed25519 private key: delete its file to have a new one made")
	}
	kid := KeyID(publicOf(key))
	header, err := json.Marshal(map[string]string{"alg": jwks.EdDSA, "typ": typ, "kid": kid})
	if err != nil {
		return nil, err
	}
	return &Signer{key: key, kid: kid, header: base64.RawURLEncoding.EncodeToString(header)}, nil
}

func publicOf(key ed25519.PrivateKey) ed25519.PublicKey {
	return ed25519.PublicKey(key[ed25519.PrivateKeySize-ed25519.PublicKeySize:])
}

// KeyID names a public key by its content.
func KeyID(public ed25519.PublicKey) string {
	sum := sha256.Sum256(public)
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// KeySet is the public half, for verifiers in the same process.
func (s *Signer) KeySet() jwks.Set {
	return jwks.NewSet(jwks.Key{ID: s.kid, Alg: jwks.EdDSA, Public: publicOf(s.key)})
}

// JWKS is the public half as JSON.
func (s *Signer) JWKS() ([]byte, error) {
	return jwks.Marshal(jwks.Key{ID: s.kid, Alg: jwks.EdDSA, Public: publicOf(s.key)})
}

// Mint signs the claims with a fresh id, valid from now for Lifetime.
func (s *Signer) Mint(c Claims, now time.Time) (string, error) {
	if len(c.Audiences) == 0 || c.Subject == "" {
		return "", errors.New("identity token needs a subject and an audience")
	}
	body, err := json.Marshal(payload{
		Issuer: Issuer, Audiences: c.Audiences, Subject: c.Subject, Tenant: c.Tenant, Kind: c.Kind,
		Permissions: append([]string{}, c.Permissions...),
		ID:          rand.Text(), IssuedAt: now.Unix(), Expires: now.Add(Lifetime).Unix(),
	})
	if err != nil {
		return "", fmt.Errorf("encode identity token: %w", err)
	}
	signed := s.header + "." + base64.RawURLEncoding.EncodeToString(body)
	return signed + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(s.key, []byte(signed))), nil
}

// Verifier checks tokens for one audience. It is safe for concurrent use.
type Verifier struct {
	keys     jwks.Set
	audience string
}

// NewVerifier accepts tokens of the given keys that name audience.
func NewVerifier(keys jwks.Set, audience string) (*Verifier, error) {
	if keys.Len() == 0 || audience == "" {
		return nil, errors.New("identity verifier needs a key set with a key and an audience")
	}
	return &Verifier{keys: keys, audience: audience}, nil
}

// Verify returns the caller, or why the token does not count. The error never
// contains the token.
func (v *Verifier) Verify(token string, now time.Time) (Claims, error) {
	parsed, err := jwks.ParseToken(token)
	if err != nil {
		return Claims{}, fmt.Errorf("identity token: %w", err)
	}
	if parsed.Typ != typ {
		return Claims{}, errors.New("identity token is of another type")
	}
	key, ok := v.keys.Lookup(parsed.KeyID)
	if !ok {
		return Claims{}, errors.New("identity token is signed with an unknown key")
	}
	if err := parsed.Verify(key); err != nil {
		return Claims{}, fmt.Errorf("identity token: %w", err)
	}
	c, err := read(parsed.Claims)
	if err != nil {
		return Claims{}, err
	}
	switch {
	case !slices.Contains(c.Audiences, v.audience):
		return Claims{}, fmt.Errorf("identity token is not for %q", v.audience)
	case !now.Before(c.Expires):
		return Claims{}, errors.New("identity token is expired")
	case c.IssuedAt.After(now.Add(Leeway)):
		return Claims{}, errors.New("identity token is issued in the future")
	case c.Expires.Sub(c.IssuedAt) > Lifetime:
		return Claims{}, errors.New("identity token lives too long")
	}
	return c, nil
}

func read(claims map[string]any) (Claims, error) {
	// The strict parser already refused duplicate and case-variant names, so
	// this second decoding cannot see other values than the first.
	data, err := json.Marshal(claims)
	if err != nil {
		return Claims{}, fmt.Errorf("identity token: %w", err)
	}
	var p payload
	if err := json.Unmarshal(data, &p); err != nil {
		return Claims{}, errors.New("identity token has a claim of a wrong type")
	}
	if p.Issuer != Issuer || p.Subject == "" || p.Expires <= 0 || p.IssuedAt <= 0 {
		return Claims{}, errors.New("identity token lacks its issuer, subject or times")
	}
	return Claims{
		Subject: p.Subject, Tenant: p.Tenant, Kind: p.Kind, Permissions: p.Permissions, Audiences: p.Audiences,
		ID: p.ID, IssuedAt: time.Unix(p.IssuedAt, 0), Expires: time.Unix(p.Expires, 0),
	}, nil
}
