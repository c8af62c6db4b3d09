package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/harness"
)

const keysGateway = head + `
upstreams:
  - {name: up, endpoints: ["${up}"]}
routes:
  - {name: api, match: {path: {prefix: /}}, auth: api_key, upstream: up}
`

// keysVerb runs `tollgate keys …` on the stack's file and wants an exit code.
func keysVerb(t *testing.T, file string, code int, args ...string) (string, string) {
	t.Helper()
	if file != "" {
		args = append(args, "-f", file)
	}
	out, errs, got := harness.Run(t, append([]string{"keys"}, args...)...)
	if got != code {
		t.Errorf("tollgate keys %v: exit %d, want %d\n%s%s", args, got, code, out, errs)
	}
	return out, errs
}

// TestKeys: the life of a key by the command line alone, as the running gateway
// sees it; every answer of the verbs is one a script can trust.
func TestKeys(t *testing.T) {
	up := harness.NewUpstream(t, "up")
	s := harness.NewStack(t, harness.Options{
		Gateway: keysGateway, Vars: map[string]string{"up": up.Address},
		Keys: []harness.Key{{Name: "first", Tenant: "acme", Owner: "bob\x1b[2J\nx", Permissions: []string{"a:b"}}, {Name: "other", Tenant: "globex"}},
	})
	id := func(secret string) string { return strings.Split(secret, "_")[2] }
	first, other := s.Secrets["first"], s.Secrets["other"]
	awaitStatus(t, s, "/x", withKey(first), okOnly, 3*time.Second)

	t.Run("list shows no hash and moves no cursor", func(t *testing.T) {
		out, _ := keysVerb(t, s.File, 0, "list")
		if !containsAll(out, id(first), id(other), "acme", "live", `bob\x1b[2J\nx`) || strings.Contains(out, "sha256") || strings.Contains(out, "\x1b") || strings.Count(out, "\n") != 3 {
			t.Errorf("%q", out)
		}
		out, _ = keysVerb(t, s.File, 0, "list", "--json")
		var listed struct {
			Keys []struct{ ID, State, Tenant, Owner string }
		}
		if err := json.Unmarshal([]byte(out), &listed); err != nil || len(listed.Keys) != 2 || listed.Keys[0].ID != id(first) || listed.Keys[0].State != "live" || strings.Contains(out, "hash") {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("a rotated key and its successor overlap", func(t *testing.T) {
		out, errs := keysVerb(t, s.File, 0, "rotate", id(first), "--overlap", "3s", "--json")
		second := field(t, out, "key")
		if errs != "" || id(second) == id(first) || strings.Contains(out, first) {
			t.Errorf("%s %s", out, errs)
		}
		rotated := time.Now()
		awaitStatus(t, s, "/x", withKey(second), okOnly, 2*time.Second)
		if a := get(t, s, "/x", withKey(first)); a.Status != okOnly && time.Since(rotated) < time.Second {
			t.Errorf("the old key within the overlap: %d", a.Status)
		}
		awaitStatus(t, s, "/x", withKey(first), http.StatusUnauthorized, 5*time.Second)
		wantEnvelope(t, get(t, s, "/x", withKey(first)), http.StatusUnauthorized, "UNAUTHORIZED", "expired_key")
		keysVerb(t, s.File, 1, "rotate", id(first)) // it is no use any more
	})
	t.Run("a revoked key is refused within a second", func(t *testing.T) {
		out, _ := keysVerb(t, s.File, 0, "revoke", id(other))
		if !containsAll(out, id(other), "globex", "revoked") {
			t.Errorf("%q", out)
		}
		awaitStatus(t, s, "/x", withKey(other), http.StatusUnauthorized, time.Second)
		wantEnvelope(t, get(t, s, "/x", withKey(other)), http.StatusUnauthorized, "UNAUTHORIZED", "revoked_key")
		keysVerb(t, s.File, 0, "revoke", id(other)) // again: it is revoked, as was asked
	})
	t.Run("what was not done is not said to be done", func(t *testing.T) {
		before, _ := os.ReadFile(filepath.Join(s.Dir, "keys.yaml"))
		for _, c := range []struct {
			code int
			args []string
			says string
		}{
			{1, []string{"revoke", "nobody"}, `no key has the id "nobody"`},
			{1, []string{"rotate", "nobody"}, `no key has the id "nobody"`},
			{1, []string{"create", "--tenant", "nobody"}, "not in the gateway file"},
			{2, []string{"revoke"}, "accepts 1 arg"},
			{2, []string{"rotate", id(first), "--overlap", "soon"}, "--overlap"},
			{2, []string{"rotate", id(first), "--overlap", "-1s"}, "--overlap"},
			{2, []string{"create", "--tenant", "acme", "--expires", "0s"}, "--expires"},
			{2, []string{"list", "extra"}, "list"},
			{2, []string{"revokee", "x"}, "revoke"},
		} {
			out, errs := keysVerb(t, s.File, c.code, c.args...)
			if out != "" || !strings.Contains(errs, c.says) {
				t.Errorf("%v: %q %q", c.args, out, errs)
			}
		}
		keysVerb(t, "", 2, "list")
		if after, _ := os.ReadFile(filepath.Join(s.Dir, "keys.yaml")); !slices.Equal(before, after) {
			t.Errorf("the file changed:\n%s", after)
		}
	})
	t.Run("a permission that grants nothing", func(t *testing.T) {
		out, errs := keysVerb(t, s.File, 0, "create", "--tenant", "acme", "--permission", "foo", "--permission", "admin", "--permission", "a:b", "--permission", "*")
		if !strings.HasPrefix(out, "tok_live_") || strings.Count(errs, "warning:") != 1 || !containsAll(errs, `warning: --permission "foo" grants nothing`, "its roles: admin\n") {
			t.Errorf("%q %q", out, errs)
		}
	})
	t.Run("a key is revoked while the gateway file is broken", func(t *testing.T) {
		path := filepath.Join(harness.TempDir(t), "keys.yaml")
		out, errs := keysVerb(t, "", 0, "create", "--keys", path, "--tenant", "acme", "--permission", "clerk", "--json")
		if errs != "" {
			t.Errorf("nobody knows the roles, yet: %s", errs)
		}
		keysVerb(t, "", 0, "revoke", field(t, out, "id"), "--keys", path)
		if out, _ = keysVerb(t, "", 0, "list", "--keys", path); !strings.Contains(out, "revoked") {
			t.Error(out)
		}
	})
}

// TestBadKeyFile: a revocation that was mistyped is told to whoever asks,
// whichever way the authorization server runs.
func TestBadKeyFile(t *testing.T) {
	spoil := func(t *testing.T, path string) (mend func()) {
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(good, "      revokd: 2026-01-01T00:00:00Z\n"...), 0o600); err != nil {
			t.Fatal(err)
		}
		return func() { _ = os.WriteFile(path, good, 0o600) }
	}
	check := func(t *testing.T, admin, path string, also ...string) {
		t.Helper()
		ask := func(want ...string) func() error {
			return func() error {
				status, body, err := harness.Get("http://" + strings.TrimPrefix(admin, "http://") + "/readyz")
				if err != nil || status != okOnly || !containsAll(body, want...) {
					return fmt.Errorf("%d %s %w", status, body, err)
				}
				return nil
			}
		}
		mend := spoil(t, path)
		harness.Eventually(t, 5*time.Second, "the fault shows", ask(`"degraded"`, "keys.yaml:", "revokd"))
		if len(also) > 0 {
			if out, errs, code := harness.Run(t, append([]string{"status"}, also...)...); code != 1 || !containsAll(out, "\nFAULT "+path+":", `unknown key "revokd"; did you mean "revoked"?`, "\nNODE ") || errs != "it serves on, with faults to mend\n" {
				t.Errorf("status: exit %d\n%s%s", code, out, errs)
			}
			if out, _, code := harness.Run(t, append([]string{"status", "--json"}, also...)...); code != 1 || !containsAll(out, `"faults":["`+path+":") {
				t.Errorf("status --json: exit %d\n%s", code, out)
			}
		}
		mend()
		harness.Eventually(t, 5*time.Second, "it is gone", ask(`"status":"ok"`))
		if len(also) > 0 {
			if out, errs, code := harness.Run(t, append([]string{"status"}, also...)...); code != 0 {
				t.Errorf("status: exit %d\n%s%s", code, out, errs)
			}
		}
	}
	t.Run("a role of its own", func(t *testing.T) {
		s := harness.NewStack(t, harness.Options{
			Gateway: keysGateway, NoEnvoy: true, Vars: map[string]string{"up": "127.0.0.1:1"}, Keys: []harness.Key{{Name: "k", Tenant: "acme"}},
		})
		check(t, s.ExtAuthz[0].Ready.Admin, filepath.Join(s.Dir, "keys.yaml"))
	})
	t.Run("all in one", func(t *testing.T) {
		file := writeGateway(t, strings.ReplaceAll(keysGateway, "${up}", "127.0.0.1:1"))
		keysVerb(t, file, 0, "create", "--tenant", "acme")
		p, _ := startRun(t, file, "--no-envoy")
		check(t, p.Ready.Admin, filepath.Join(filepath.Dir(file), "keys.yaml"), "-f", file)
	})
}
