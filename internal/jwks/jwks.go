// Package jwks reads key sets and the tokens they verify. Invariant: a key
// verifies with exactly one algorithm, and a token is looked at only if every
// reader of its bytes must see the same header and claims.
package jwks

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// Bounds of a key set.
const (
	MaxBytes = 64 << 10
	MaxKeys  = 32
)

// The algorithms that keys are pinned to.
const (
	RS256 = "RS256"
	ES256 = "ES256"
	EdDSA = "EdDSA"
)

// Key is one public key, pinned to its algorithm.
type Key struct {
	ID     string
	Alg    string
	Public crypto.PublicKey
}

// Equal reports whether both are the same key with the same algorithm.
func (k Key) Equal(o Key) bool {
	if k.Alg != o.Alg {
		return false
	}
	public, ok := k.Public.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(o.Public)
}

// Set is an immutable key set. The zero value is empty.
type Set struct {
	keys []Key
}

// NewSet returns a set of the given keys.
func NewSet(keys ...Key) Set { return Set{keys: keys} }

// Len is the number of usable keys.
func (s Set) Len() int { return len(s.keys) }

// Lookup finds the key that a token names. A token that names none is verified
// only where there is no choice.
func (s Set) Lookup(kid string) (Key, bool) {
	if kid == "" {
		if len(s.keys) == 1 {
			return s.keys[0], true
		}
		return Key{}, false
	}
	for _, k := range s.keys {
		if k.ID == kid {
			return k, true
		}
	}
	return Key{}, false
}

// Covers reports whether every key of o is in s.
func (s Set) Covers(o Set) bool {
	for _, k := range o.keys {
		if !slices.ContainsFunc(s.keys, func(held Key) bool { return held.ID == k.ID && held.Equal(k) }) {
			return false
		}
	}
	return true
}

type rawKey struct {
	Kty    string   `json:"kty"`
	Use    string   `json:"use,omitempty"`
	KeyOps []string `json:"key_ops,omitempty"`
	Kid    string   `json:"kid,omitempty"`
	Alg    string   `json:"alg,omitempty"`
	Crv    string   `json:"crv,omitempty"`
	N      string   `json:"n,omitempty"`
	E      string   `json:"e,omitempty"`
	X      string   `json:"x,omitempty"`
	Y      string   `json:"y,omitempty"`
}

// Parse reads a JWKS. It is lenient per key: issuers publish keys for
// encryption or of kinds to come, and one of them must not blind us to the
// others. Keys that cannot be used are left out; two keys of one id are both
// left out, because either reading could be the attacker's.
func Parse(data []byte) (Set, error) {
	if len(data) > MaxBytes {
		return Set{}, fmt.Errorf("key set has %d bytes, at most %d are read: publish fewer keys", len(data), MaxBytes)
	}
	var document struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &document); err != nil {
		return Set{}, fmt.Errorf("key set is not JSON of the form {\"keys\": […]}: %w", err)
	}
	if document.Keys == nil {
		return Set{}, errors.New(`key set has no "keys": expected {"keys": […]}`)
	}
	if len(document.Keys) > MaxKeys {
		return Set{}, fmt.Errorf("key set has %d keys, at most %d are read: publish fewer keys", len(document.Keys), MaxKeys)
	}
	var set Set
	seen := map[string]int{}
	for _, raw := range document.Keys {
		key, err := parseKey(raw)
		if err != nil {
			continue
		}
		seen[key.ID]++
		set.keys = append(set.keys, key)
	}
	unique := set.keys[:0]
	for _, k := range set.keys {
		if seen[k.ID] == 1 {
			unique = append(unique, k)
		}
	}
	set.keys = unique
	return set, nil
}

var errUnusable = errors.New("unusable key")

func parseKey(raw json.RawMessage) (Key, error) {
	var k rawKey
	if err := json.Unmarshal(bytes.TrimSpace(raw), &k); err != nil {
		return Key{}, err
	}
	if k.Use != "" && k.Use != "sig" || len(k.Kid) > 256 {
		return Key{}, errUnusable
	}
	key := Key{ID: k.Kid}
	var err error
	switch {
	case k.Kty == "RSA" && (k.Alg == "" || k.Alg == RS256):
		key.Alg = RS256
		key.Public, err = rsaKey(k)
	case k.Kty == "EC" && k.Crv == "P-256" && (k.Alg == "" || k.Alg == ES256):
		key.Alg = ES256
		key.Public, err = ecKey(k)
	case k.Kty == "OKP" && k.Crv == "Ed25519" && (k.Alg == "" || k.Alg == EdDSA || k.Alg == "Ed25519"):
		key.Alg = EdDSA
		key.Public, err = edKey(k)
	default:
		return Key{}, errUnusable
	}
	return key, err
}

func rsaKey(k rawKey) (crypto.PublicKey, error) {
	n, errN := base64.RawURLEncoding.DecodeString(k.N)
	e, errE := base64.RawURLEncoding.DecodeString(k.E)
	if err := errors.Join(errN, errE); err != nil {
		return nil, err
	}
	exponent := new(big.Int).SetBytes(e)
	modulus := new(big.Int).SetBytes(n)
	if modulus.BitLen() < 2048 || modulus.BitLen() > 8192 || exponent.BitLen() > 31 || exponent.Bit(0) == 0 || exponent.Int64() < 3 {
		return nil, errUnusable
	}
	return &rsa.PublicKey{N: modulus, E: int(exponent.Int64())}, nil
}

func ecKey(k rawKey) (crypto.PublicKey, error) {
	x, errX := base64.RawURLEncoding.DecodeString(k.X)
	y, errY := base64.RawURLEncoding.DecodeString(k.Y)
	if err := errors.Join(errX, errY); err != nil {
		return nil, err
	}
	if len(x) != 32 || len(y) != 32 {
		return nil, errUnusable
	}
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
}

func edKey(k rawKey) (crypto.PublicKey, error) {
	x, err := base64.RawURLEncoding.DecodeString(k.X)
	if err != nil {
		return nil, err
	}
	if len(x) != ed25519.PublicKeySize {
		return nil, errUnusable
	}
	return ed25519.PublicKey(x), nil
}

// Marshal renders Ed25519 keys, the only kind we sign with, as a JWKS.
func Marshal(keys ...Key) ([]byte, error) {
	document := struct {
		Keys []rawKey `json:"keys"`
	}{Keys: []rawKey{}}
	for _, k := range keys {
		public, ok := k.Public.(ed25519.PublicKey)
		if !ok {
			return nil, fmt.Errorf("key %q is not an Ed25519 key", k.ID)
		}
		document.Keys = append(document.Keys, rawKey{
			Kty: "OKP", Crv: "Ed25519", Use: "sig", Alg: EdDSA, Kid: k.ID,
			X: base64.RawURLEncoding.EncodeToString(public),
		})
	}
	return json.Marshal(document)
}
