package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLeakedKey: who found a key in public names it by itself, and it is revoked;
// whatever a verb of keys does not understand, it repeats no secret of it.
func TestLeakedKey(t *testing.T) {
	gateway := file(t, "gateway.yaml", good)
	store := filepath.Join(filepath.Dir(gateway), "keys.yaml")
	create := func() (key, id string) {
		code, stdout, stderr := tollgate(t, "keys", "create", "-f", gateway, "--tenant", "acme", "--permission", "*")
		if code != exitDone {
			t.Fatal(stderr)
		}
		key = strings.TrimSpace(stdout)
		return key, strings.Split(key, "_")[2]
	}
	leaked, id := create()
	other, otherID := create()
	secret := strings.Split(leaked, "_")[3]
	t.Run("revoked by itself", func(t *testing.T) {
		code, stdout, stderr := tollgate(t, "keys", "revoke", " "+leaked+"\n", "-f", gateway)
		if code != exitDone || !strings.HasPrefix(stdout, "key "+id+" of tenant acme is revoked since ") || strings.Contains(stdout+stderr, secret[:8]) {
			t.Errorf("exit %d\n%s%s", code, stdout, stderr)
		}
		_, stdout, _ = tollgate(t, "keys", "list", "-f", gateway)
		for row := range strings.Lines(stdout) {
			if strings.HasPrefix(row, id) && !strings.Contains(row, " revoked ") || strings.HasPrefix(row, otherID) && !strings.Contains(row, " live ") {
				t.Error(stdout)
			}
		}
	})
	t.Run("no successor of what is revoked", func(t *testing.T) {
		if code, stdout, stderr := tollgate(t, "keys", "rotate", leaked, "-f", gateway); code != exitFailed || !strings.Contains(stderr, "key "+id+" is revoked") || strings.Contains(stdout+stderr, secret[:8]) {
			t.Errorf("exit %d\n%s%s", code, stdout, stderr)
		}
	})
	t.Run("rotated by itself", func(t *testing.T) {
		code, stdout, stderr := tollgate(t, "keys", "rotate", other, "-f", gateway)
		if code != exitDone || !strings.Contains(stderr, "It replaces key "+otherID) || strings.Contains(stdout+stderr, strings.Split(other, "_")[3][:8]) {
			t.Errorf("exit %d\n%s%s", code, stdout, stderr)
		}
	})
	before, err := os.ReadFile(store)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"cut short":           {[]string{"revoke", leaked[:len(leaked)-3], "-f", gateway}, exitFailed, "part of one or mistyped"},
		"the secret alone":    {[]string{"revoke", secret, "-f", gateway}, exitFailed, "no key has this id"},
		"an id":               {[]string{"revoke", "abc", "-f", gateway}, exitFailed, `no key has the id "abc"`},
		"of another store":    {[]string{"revoke", leaked, "--keys", filepath.Join(t.TempDir(), "keys.yaml")}, exitFailed, "the key " + id + " is not there"},
		"as a verb":           {[]string{leaked}, exitUsage, "tok_live_" + id + "_…"},
		"where nothing is":    {[]string{"list", leaked, "-f", gateway}, exitUsage, "tok_live_" + id + "_…"},
		"as a flag":           {[]string{"revoke", "--" + leaked, "-f", gateway}, exitUsage, "unknown flag"},
		"as a tenant":         {[]string{"create", "--tenant", leaked, "-f", gateway}, exitFailed, "tok_live_" + id + "_…"},
		"as a life":           {[]string{"create", "--tenant", "acme", "--expires", leaked, "-f", gateway}, exitUsage, "write a duration"},
		"as the gateway file": {[]string{"list", "-f", leaked}, exitFailed, "no such file"},
	} {
		code, stdout, stderr := tollgate(t, append([]string{"keys"}, c.args...)...)
		if code != c.code || !strings.Contains(stderr, c.says) || strings.Contains(stdout+stderr, secret[:8]) {
			t.Errorf("%s: exit %d\n%s%s", name, code, stdout, stderr)
		}
	}
	if after, err := os.ReadFile(store); err != nil || string(after) != string(before) {
		t.Errorf("they changed the store: %v\n%s", err, after)
	}
}
