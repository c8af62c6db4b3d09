package credential_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"tollgate/extauthz/credential"
)

// TestRootKeepsTheOwner: what root changes, the server that is not root goes on
// reading, and nobody else begins to.
func TestRootKeepsTheOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test gives files away: run it as root")
	}
	const owner, group = 4711, 4712
	path := filepath.Join(t.TempDir(), "keys.yaml")
	now := time.Now()
	key, _, err := credential.CreateKey(path, credential.KeySpec{Tenant: "acme"}, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, owner, group); err != nil {
		t.Fatal(err)
	}
	// A revoked key has no successor, so the order counts.
	for _, c := range []struct {
		name   string
		change func() error
	}{
		{"create", func() error {
			_, _, err := credential.CreateKey(path, credential.KeySpec{Tenant: "acme"}, now)
			return err
		}},
		{"rotate", func() error { _, _, _, err := credential.RotateKey(path, key.ID, time.Hour, now); return err }},
		{"revoke", func() error { _, err := credential.RevokeKey(path, key.ID, now); return err }},
	} {
		if err := c.change(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Uid != owner || stat.Gid != group || info.Mode().Perm() != 0o600 {
			t.Errorf("%s leaves it to %+v, %s", c.name, info.Sys(), info.Mode())
		}
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) > 2 { // the lock is beside it
		t.Errorf("%v, %v", left, err)
	}
}
