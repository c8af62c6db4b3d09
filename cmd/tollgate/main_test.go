package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tollgate runs one command as a shell would.
func tollgate(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const good = `version: 1
listeners: [{name: http, address: 127.0.0.1:0}]
identity: {api_keys: {header: x-api-key, store: file:keys.yaml}}
tenants: [{name: acme}]
upstreams: [{name: orders, endpoints: [127.0.0.1:9]}]
routes: [{name: orders, match: {path: {prefix: /}}, auth: api_key, upstream: orders}]
`

func TestExitCodesAndWords(t *testing.T) {
	bad := file(t, "gateway.yaml", strings.ReplaceAll(good, "upstream: orders}", "upstream: order}"))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	valid := file(t, "gateway.yaml", good)
	warns := file(t, "gateway.yaml", strings.ReplaceAll(good, "auth: api_key,", `auth: api_key, authorize: [{allow: '"a:b" in auth.permissions'}],`))
	free := []string{"--free-ports", "--data-dir", t.TempDir()}
	tests := []struct {
		name string
		args []string
		code int
		says []string // on stderr
	}{
		{"no such verb", []string{"serve"}, exitUsage, []string{`unknown command "serve"`, "tollgate --help"}},
		{"no such flag", []string{"run", "--fil", "x"}, exitUsage, []string{"unknown flag: --fil"}},
		{"an argument too few", []string{"validate"}, exitUsage, []string{"requires at least 1 arg"}},
		{"a good file", []string{"validate", valid}, exitDone, nil},
		{"a bad file", []string{"validate", bad}, exitFailed, []string{bad + `:6:`, `routes[orders].upstream: no upstream is named "order"; did you mean "orders"?`}},
		{"a file that is not there", []string{"validate", "/none/such.yaml"}, exitFailed, []string{"-f /none/such.yaml", "no such file"}},
		{"a warning", []string{"validate", warns}, exitDone, []string{"warning: ", "auth.permissions"}},
		{"a strict warning", []string{"validate", "--strict", warns}, exitFailed, []string{"warning: ", "--strict"}},
		{"run without a file", append([]string{"run"}, free...), exitFailed, []string{"-f FILE"}},
		{"run a bad file", append([]string{"run", "-f", bad}, free...), exitFailed, []string{`did you mean "orders"?`}},
		{"a taken port", []string{"run", "-f", valid, "--xds-address", taken.Addr().String(), "--extauthz-address", "127.0.0.1:0", "--ratelimit-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0", "--data-dir", t.TempDir()}, exitFailed, []string{"--xds-address", "taken", "--free-ports"}},
		{"plain text off loopback", []string{"xds", "-f", valid, "--xds-address", "0.0.0.0:0", "--admin-address", "127.0.0.1:0", "--data-dir", t.TempDir()}, exitFailed, []string{"--xds-address 0.0.0.0:0 is off loopback", "--tls-cert", "--insecure"}},
		{"an admin off loopback", []string{"xds", "-f", valid, "--xds-address", "127.0.0.1:0", "--admin-address", "0.0.0.0:0", "--data-dir", t.TempDir()}, exitFailed, []string{"--admin-address 0.0.0.0:0 is off loopback", "--insecure"}},
		{"asking in plain text off loopback", []string{"ratelimit", "--xds-servers", "10.0.0.1:18000", "--ratelimit-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0"}, exitFailed, []string{"10.0.0.1:18000 is off loopback", "--tls-ca"}},
		{"an envoy that is none", append([]string{"run", "-f", valid, "--envoy-path", "/bin/true"}, free...), exitFailed, []string{"/bin/true", "TOLLGATE_ENVOY or --envoy-path"}},
		{"envoy's admin off loopback", []string{"run", "-f", valid, "--envoy-admin-address", "0.0.0.0:0", "--xds-address", "127.0.0.1:0", "--extauthz-address", "127.0.0.1:0", "--ratelimit-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0", "--data-dir", t.TempDir()}, exitFailed, []string{"--envoy-admin-address", "loopback"}},
		{"demo without a tenant", append([]string{"run", "--demo", "-f", file(t, "gateway.yaml", strings.ReplaceAll(good, "tenants: [{name: acme}]\n", ""))}, free...), exitFailed, []string{"first named tenant"}},
		{"a log level that is none", append([]string{"run", "-f", valid, "--log-level", "loud"}, free...), exitFailed, []string{"--log-level", "debug, info"}},
		{"an unknown setting", append([]string{"run", "-f", valid, "--settings", file(t, "s.yaml", "redis: x\n")}, free...), exitFailed, []string{`no setting is named "redis"`}},
		{"status of nobody", []string{"status", "--admin-address", "127.0.0.1:1"}, exitFailed, []string{"nobody answers at --admin-address"}},
		{"bootstrap without a server", []string{"envoy", "bootstrap", "--xds-servers", ""}, exitFailed, []string{"--xds-servers"}},
		{"a key of nobody", []string{"keys", "create", "-f", valid, "--tenant", "acne"}, exitFailed, []string{`--tenant "acne"`, "acme"}},
		{"a key for no time", []string{"keys", "create", "-f", valid, "--tenant", "acme", "--expires", "soon"}, exitFailed, []string{"--expires", "90d"}},
		{"a key of no file", []string{"keys", "create", "--tenant", "acme"}, exitFailed, []string{"-f FILE", "--keys"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			code, _, stderr := tollgate(t, test.args...)
			if code != test.code {
				t.Errorf("exit %d, want %d\n%s", code, test.code, stderr)
			}
			for _, word := range test.says {
				if !strings.Contains(stderr, word) {
					t.Errorf("want %q in\n%s", word, stderr)
				}
			}
		})
	}
}

func TestKeysCreateStoresOnlyTheHash(t *testing.T) {
	gateway := file(t, "gateway.yaml", good)
	code, stdout, stderr := tollgate(t, "keys", "create", "-f", gateway, "--tenant", "acme", "--owner", "ann", "--permission", "orders:read", "--permission", "orders:write", "--expires", "90d", "--json")
	if code != exitDone {
		t.Fatal(stderr)
	}
	var out struct {
		ID, Key, Tenant, Owner, Store string
		Permissions                   []string
		Expires                       time.Time
	}
	if err := json.Unmarshal([]byte(stdout), &out); err != nil {
		t.Fatal(err)
	}
	if out.Tenant != "acme" || out.Owner != "ann" || len(out.Permissions) != 2 || time.Until(out.Expires).Round(time.Hour) != 90*24*time.Hour {
		t.Errorf("got %+v", out)
	}
	store := filepath.Join(filepath.Dir(gateway), "keys.yaml")
	data, err := os.ReadFile(store)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), out.ID) || !strings.Contains(string(data), "sha256:") || strings.Contains(string(data), out.Key) {
		t.Errorf("the store holds\n%s", data)
	}
	if info, err := os.Stat(store); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	code, stdout, stderr = tollgate(t, "keys", "create", "-f", gateway, "--tenant", "acme", "--permission", "*")
	if code != exitDone || !strings.HasPrefix(stdout, "tok_live_") || strings.Contains(stderr, strings.TrimSpace(stdout)) {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestSettingsFromEnvironmentAndFile(t *testing.T) {
	t.Setenv("TOLLGATE_XDS_SERVERS", "10.1.1.1:18000,10.1.1.2:18000")
	code, stdout, stderr := tollgate(t, "envoy", "bootstrap", "--node-id", "edge-7")
	if code != exitDone || !strings.Contains(stdout, "10.1.1.1") || !strings.Contains(stdout, "10.1.1.2") || !strings.Contains(stdout, `"edge-7"`) {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
	code, stdout, _ = tollgate(t, "envoy", "bootstrap", "--xds-servers", "127.0.0.1:5")
	if code != exitDone || strings.Contains(stdout, "10.1.1.1") {
		t.Errorf("a flag wins over the environment: exit %d\n%s", code, stdout)
	}
}
