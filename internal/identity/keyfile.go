package identity

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"

	"tollgate/internal/secretfile"
)

// LoadOrCreateKey reads the signing key at path, or makes one there that only
// its owner can read. Of several processes that start at once, all get the same key.
func LoadOrCreateKey(path string) (ed25519.PrivateKey, error) {
	_, err := secretfile.LoadOrCreate(path, func() ([]byte, error) {
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
	})
	if err != nil {
		return nil, fmt.Errorf("identity key: %w", err)
	}
	return LoadKey(path)
}

// LoadOrCreatePublished is LoadOrCreateKey that also puts the public half where
// services find it: at public, or, when that is empty, beside the key as
// identity.jwks.
func LoadOrCreatePublished(path, public string) (ed25519.PrivateKey, error) {
	key, err := LoadOrCreateKey(path)
	if err != nil {
		return nil, err
	}
	signer, err := NewSigner(key)
	if err != nil {
		return nil, err
	}
	set, err := signer.JWKS()
	if err != nil {
		return nil, err
	}
	if public == "" {
		public = filepath.Join(filepath.Dir(path), "identity.jwks")
	}
	return key, secretfile.Write(public, set, 0o644)
}

// LoadKey reads a signing key: PEM, PKCS #8, Ed25519.
func LoadKey(path string) (ed25519.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("identity key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("identity key %s can be read by others: chmod 600 it", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("identity key: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("identity key %s is not PEM: delete it to have a new one made", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("identity key %s is not an Ed25519 key in PKCS #8: delete it to have a new one made", path)
	}
	return key, nil
}
