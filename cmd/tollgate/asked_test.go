package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollgate/internal/settings"
	"tollgate/xds/admin"
	"tollgate/xds/discovery"
	"tollgate/xds/ledger"
)

// TestVerbsFindTheControlPlane: by its folder, as they find its token; the flag
// and the environment win, and a token that is not the folder's goes nowhere that
// the folder says.
func TestVerbsFindTheControlPlane(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test gives files away: run it as root")
	}
	const secret = "0123456789abcdef0123456789abcdef"
	asked := map[string][]string{} // who was asked → with what token
	plane := func(name string) net.Addr {
		api := admin.New(admin.Config{Ledger: ledger.New(time.Now), Registry: discovery.NewRegistry(time.Now), Now: time.Now})
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked[name] = append(asked[name], r.Header.Get("Authorization"))
			if r.URL.Path == "/readyz" {
				_, _ = w.Write([]byte(`{"status":"ok","faults":[]}`))
				return
			}
			api.ServeHTTP(w, r)
		}))
		t.Cleanup(server.Close)
		return server.Listener.Addr()
	}
	folder, other := plane("folder"), plane("other")
	dir := t.TempDir()
	state := filepath.Join(dir, ".tollgate")
	if err := os.MkdirAll(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(state, "admin.token"), []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Its successor is found, not it: the file is written anew at each start.
	if _, err := settings.OpenAdmin(state, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}); err != nil {
		t.Fatal(err)
	}
	if token, err := settings.OpenAdmin(state, folder); err != nil || token != secret {
		t.Fatal(token, err)
	}
	where := filepath.Join(state, "admin.address")
	t.Chdir(dir)
	for _, c := range []struct {
		name  string
		args  []string
		env   map[string]string
		file  string // what is in the folder instead
		owner int
		code  int
		asks  string // which one, and nobody else
		says  string
	}{
		{name: "by the folder", args: []string{"--data-dir", state}, asks: "folder"},
		{name: "by the gateway file", args: []string{"-f", filepath.Join(dir, "gateway.yaml")}, asks: "folder"},
		{name: "by where we are", asks: "folder"},
		{name: "the flag wins", args: []string{"--data-dir", state, "--admin-address", other.String()}, asks: "other"},
		{name: "the environment wins", args: []string{"--data-dir", state}, env: map[string]string{"TOLLGATE_ADMIN_ADDRESS": other.String()}, asks: "other"},
		{name: "a token of elsewhere", args: []string{"--data-dir", state}, env: map[string]string{"TOLLGATE_ADMIN_TOKEN": "elsewhere"}, code: exitFailed, says: "127.0.0.1:9900"},
		{name: "no address", args: []string{"--data-dir", state}, file: "what", code: exitFailed, says: where + `: "what": write host:port`},
		{name: "written by a stranger", args: []string{"--data-dir", state}, owner: 4711, code: exitFailed, says: where + " is not the file of who made the token"},
	} {
		t.Run(c.name, func(t *testing.T) {
			clear(asked)
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			if c.file != "" {
				if err := os.WriteFile(where, []byte(c.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chown(where, c.owner, -1); err != nil {
				t.Fatal(err)
			}
			code, _, stderr := tollgate(t, append([]string{"status"}, c.args...)...)
			if code != c.code || !strings.Contains(stderr, c.says) {
				t.Errorf("exit %d\n%s", code, stderr)
			}
			for name, tokens := range asked {
				if name != c.asks || tokens[0] != "Bearer "+secret {
					t.Errorf("%s was asked with %q", name, tokens)
				}
			}
			if c.asks != "" && len(asked) != 1 {
				t.Errorf("asked %v", asked)
			}
			if _, err := settings.OpenAdmin(state, folder); err != nil {
				t.Fatal(err)
			}
		})
	}
	if _, err := settings.OpenAdmin(state, &net.TCPAddr{IP: net.IPv6unspecified, Port: 7}); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(where); err != nil || string(data) != "127.0.0.1:7\n" {
		t.Errorf("on every interface: %q, %v", data, err)
	}
}
