package identity_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/internal/identity"
	"tollgate/internal/jwks"
)

func TestMintAndVerify(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	signer, err := identity.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	document, err := signer.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	set, err := jwks.Parse(document)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_800_000_000, 0)
	token, err := signer.Mint(identity.Claims{Subject: "ann", Tenant: "acme", Kind: "jwt", Permissions: []string{"orders:read"}, Audiences: []string{"orders", "orders-v2"}}, now)
	if err != nil {
		t.Fatal(err)
	}
	orders, _ := identity.NewVerifier(set, "orders")
	users, _ := identity.NewVerifier(set, "users")
	_, other, _ := ed25519.GenerateKey(rand.Reader)
	stranger, _ := identity.NewSigner(other)
	foreign, _ := identity.NewVerifier(stranger.KeySet(), "orders")
	c, err := orders.Verify(token, now.Add(59*time.Second))
	if err != nil || c.Subject != "ann" || c.Tenant != "acme" || c.Kind != "jwt" || c.ID == "" || !slices.Equal(c.Permissions, []string{"orders:read"}) {
		t.Errorf("%+v, %v", c, err)
	}
	for name, check := range map[string]func() error{
		"another audience": func() error { _, err := users.Verify(token, now); return err },
		"another key":      func() error { _, err := foreign.Verify(token, now); return err },
		"expired":          func() error { _, err := orders.Verify(token, now.Add(60*time.Second)); return err },
		"future":           func() error { _, err := orders.Verify(token, now.Add(-6*time.Second)); return err },
		"cut":              func() error { _, err := orders.Verify(token[:len(token)-2], now); return err },
		"empty":            func() error { _, err := orders.Verify("", now); return err },
	} {
		if err := check(); err == nil || strings.Contains(err.Error(), token) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := signer.Mint(identity.Claims{Subject: "ann"}, now); err == nil {
		t.Error("a token without audience was minted")
	}
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "identity.key")
	keys := make([]ed25519.PrivateKey, 8)
	var wait sync.WaitGroup
	for i := range keys {
		wait.Go(func() {
			key, err := identity.LoadOrCreateKey(path)
			if err != nil {
				t.Error(err)
			}
			keys[i] = key
		})
	}
	wait.Wait()
	for _, k := range keys {
		if !k.Equal(keys[0]) {
			t.Fatal("processes that start at once have different keys")
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.LoadOrCreateKey(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Error(err)
	}
	garbage := filepath.Join(t.TempDir(), "k")
	_ = os.WriteFile(garbage, []byte("hello"), 0o600)
	if _, err := identity.LoadOrCreateKey(garbage); err == nil || !strings.Contains(err.Error(), "delete it") {
		t.Error(err)
	}
}
