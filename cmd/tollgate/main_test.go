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
	"unicode/utf8"

	"github.com/spf13/cobra"

	"tollgate/cmd/tollgate/demo"
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
	keyed := file(t, "gateway.yaml", good)
	if err := os.WriteFile(filepath.Join(filepath.Dir(keyed), "keys.yaml"), []byte("keys:\n  - {tenat: acme}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A socket's path is short, and the test's own folders are not.
	folder := func() string {
		dir, err := os.MkdirTemp("", "verb-") //nolint:usetesting // its name would be too long
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		return dir
	}
	free := []string{"--free-ports", "--data-dir", folder()}
	served := "unix:" + filepath.Join(folder(), "x.sock")
	socket, err := net.Listen("unix", strings.TrimPrefix(served, "unix:"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	tests := []struct {
		name string
		args []string
		code int
		says []string // on stderr
	}{
		{"no such verb", []string{"serve"}, exitUsage, []string{`unknown command "serve"`, "see `tollgate --help`"}},
		{"no such flag", []string{"run", "--fil", "x"}, exitUsage, []string{"unknown flag: --fil"}},
		{"an argument too few", []string{"validate"}, exitUsage, []string{"requires at least 1 arg"}},
		{"a good file", []string{"validate", valid}, exitDone, nil},
		{"a bad file", []string{"validate", bad}, exitFailed, []string{bad + `:6:`, `routes[orders].upstream: no upstream is named "order"; did you mean "orders"?`}},
		{"a file that is not there", []string{"validate", "/none/such.yaml"}, exitFailed, []string{"/none/such.yaml: no such file or directory: name a gateway file"}},
		{"run of a file without its flag", []string{"run", "gateway.yaml"}, exitUsage, []string{"tollgate run -f gateway.yaml"}},
		{"xds of a file without its flag", []string{"xds", "gateway.yaml"}, exitUsage, []string{"tollgate xds -f gateway.yaml"}},
		{"a key for nobody", []string{"keys", "create", "-f", valid}, exitUsage, []string{"needs --tenant NAME", "acme"}},
		{"a warning", []string{"validate", warns}, exitDone, []string{"warning: ", "auth.permissions"}},
		{"a bad key file", []string{"validate", keyed}, exitFailed, []string{filepath.Join(filepath.Dir(keyed), "keys.yaml") + `:2:6: unknown key "tenat"; did you mean "tenant"?`}},
		{"a strict warning", []string{"validate", "--strict", warns}, exitFailed, []string{"warning: ", "--strict"}},
		{"run without a file", append([]string{"run"}, free...), exitUsage, []string{"-f FILE"}},
		{"run a bad file", append([]string{"run", "-f", bad}, free...), exitFailed, []string{`did you mean "orders"?`}},
		{"a taken port", []string{"run", "-f", valid, "--xds-address", taken.Addr().String(), "--insecure", "--admin-address", "127.0.0.1:0", "--data-dir", folder()}, exitFailed, []string{"--xds-address", "taken", "--free-ports"}},
		{"a taken socket", []string{"run", "-f", valid, "--extauthz-address", served, "--admin-address", "127.0.0.1:0", "--data-dir", folder()}, exitFailed, []string{"--extauthz-address " + served, "served by another process"}},
		{"a socket with too long a name", []string{"run", "-f", valid, "--free-ports", "--data-dir", "/tmp/" + strings.Repeat("d", 90)}, exitUsage, []string{"--xds-address: unix:/tmp/ddd", "a socket's may have 104", "--data-dir"}},
		{"users that are none", []string{"run", "-f", valid, "--allow-uid", "envoy,-1,65534"}, exitUsage, []string{`--allow-uid "envoy": write the number`, `--allow-uid "-1"`, "--allow-uid 65534", "namespace"}},
		{"sockets and ports", []string{"ratelimit", "--xds-servers", "unix:/run/a.sock,127.0.0.1:1", "--data-dir", folder()}, exitUsage, []string{"--xds-servers", "only sockets, or only ports"}},
		{"plain text on loopback", []string{"run", "-f", valid, "--xds-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0", "--data-dir", folder()}, exitUsage, []string{"127.0.0.1:0 is a port", "socket", "--insecure"}},
		{"asking in plain text on loopback", []string{"extauthz", "--xds-servers", "127.0.0.1:18000", "--admin-address", "127.0.0.1:0", "--data-dir", folder()}, exitUsage, []string{"127.0.0.1:18000 is a port", "--tls-ca"}},
		{"plain text off loopback", []string{"extauthz", "--extauthz-address", "0.0.0.0:0", "--admin-address", "127.0.0.1:0", "--data-dir", folder()}, exitUsage, []string{"0.0.0.0:0 is a port", "--join", "--tls-cert", "--insecure"}},
		{"run off loopback", []string{"run", "-f", valid, "--xds-address", "0.0.0.0:0", "--admin-address", "127.0.0.1:0", "--data-dir", folder()}, exitUsage, []string{"0.0.0.0:0 is a port", "--insecure"}},
		{"a server that asks for no certificate", []string{"xds", "-f", valid, "--xds-address", "0.0.0.0:0", "--tls-cert", "a.pem", "--tls-key", "a.key", "--admin-address", "127.0.0.1:0", "--data-dir", folder()}, exitUsage, []string{"--tls-cert, --tls-key and --tls-ca belong together"}},
		{"half a CA", []string{"join-token", "--role", "edge", "--name", "a", "--ca-cert", "a.pem", "--data-dir", folder()}, exitUsage, []string{"--ca-cert and --ca-key belong together"}},
		{"a token of a role that joins nobody", []string{"join-token", "--role", "xds", "--name", "a", "--data-dir", folder()}, exitUsage, []string{`role "xds"`, "extauthz"}},
		{"a token for nobody", []string{"join-token", "edge/a", "--data-dir", folder()}, exitUsage, []string{"ROLE/NAME=FILE"}},
		{"an admin off loopback", []string{"xds", "-f", valid, "--xds-address", "127.0.0.1:0", "--admin-address", "0.0.0.0:0", "--data-dir", folder()}, exitUsage, []string{"--admin-address 0.0.0.0:0 is off loopback", "--insecure"}},
		{"asking in plain text off loopback", []string{"ratelimit", "--xds-servers", "10.0.0.1:18000", "--admin-address", "127.0.0.1:0", "--data-dir", folder()}, exitUsage, []string{"10.0.0.1:18000 is a port", "--tls-ca"}},
		{"an envoy that is none", append([]string{"run", "-f", valid, "--envoy-path", "/bin/true"}, free...), exitFailed, []string{"/bin/true", "TOLLGATE_ENVOY or --envoy-path"}},
		{"envoy's admin off loopback", []string{"run", "-f", valid, "--envoy-admin-address", "0.0.0.0:0", "--admin-address", "127.0.0.1:0", "--data-dir", folder()}, exitUsage, []string{"--envoy-admin-address", "loopback"}},
		{"demo without a tenant", append([]string{"run", "--demo", "-f", file(t, "gateway.yaml", strings.ReplaceAll(good, "tenants: [{name: acme}]\n", ""))}, free...), exitFailed, []string{"first named tenant"}},
		{"a log level that is none", append([]string{"run", "-f", valid, "--log-level", "loud"}, free...), exitUsage, []string{"--log-level", "debug, info"}},
		{"an unknown setting", append([]string{"run", "-f", valid, "--settings", file(t, "s.yaml", "redis: x\n")}, free...), exitUsage, []string{`no setting is named "redis"`}},
		{"status of nobody", []string{"status", "--admin-address", "127.0.0.1:1"}, exitFailed, []string{"nobody answers at --admin-address"}},
		{"bootstrap without a port of its server", []string{"envoy", "bootstrap", "--xds-servers", "xds-1"}, exitUsage, []string{"--xds-servers"}},
		{"a bootstrap in plain text", []string{"envoy", "bootstrap", "--xds-servers", "xds-1:18000"}, exitUsage, []string{"xds-1:18000 is a port", "--tls-cert", "--insecure"}},
		{"a bootstrap in plain text that was asked for", []string{"envoy", "bootstrap", "--xds-servers", "xds-1:18000", "--insecure"}, exitDone, nil},
		{"a bootstrap on a socket", []string{"envoy", "bootstrap", "--xds-servers", "unix:/run/x.sock"}, exitDone, nil},
		{"a token that is none", []string{"extauthz", "--join", "abc", "--xds-servers", "127.0.0.1:1", "--extauthz-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0", "--data-dir", folder()}, exitUsage, []string{"--join: this is no join token", "tollgate join-token"}},
		// It ends for its life of a certificate, after it has warned.
		{"servers that no other machine reaches", []string{"xds", "-f", valid, "--xds-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0", "--certificate-ttl", "1s", "--data-dir", folder()}, exitUsage, []string{"every proxy is told a socket of its own machine", `"without":"--extauthz-servers"`, `"without":"--ratelimit-servers"`}},
		{"a key of nobody", []string{"keys", "create", "-f", valid, "--tenant", "acne"}, exitFailed, []string{`--tenant "acne"`, "acme"}},
		{"a key for no time", []string{"keys", "create", "-f", valid, "--tenant", "acme", "--expires", "soon"}, exitUsage, []string{"--expires", "90d"}},
		{"an unknown verb of keys", []string{"keys", "revok", "key_1"}, exitUsage, []string{"`tollgate keys` has no \"revok\"", "create"}},
		{"an unknown verb of keys, with flags before", []string{"keys", "--settings", "/none", "bogus"}, exitUsage, []string{`has no "bogus"`}},
		{"a mistyped verb of keys", []string{"keys", "creat"}, exitUsage, []string{`did you mean "create"?`}},
		{"keys alone", []string{"keys"}, exitUsage, []string{"`tollgate keys` needs one of: create"}},
		{"an unknown verb of envoy", []string{"envoy", "bogus"}, exitUsage, []string{"`tollgate envoy` has no \"bogus\"", "bootstrap, install, run, version"}},
		{"envoy alone", []string{"envoy"}, exitUsage, []string{"needs one of"}},
		{"an unknown service", []string{"service", "foo"}, exitUsage, []string{"`tollgate service` has no \"foo\"", "order, user"}},
		{"xds without a file", []string{"xds", "--free-ports"}, exitUsage, []string{"-f FILE"}},
		{"an address that is none", []string{"xds", "-f", valid, "--xds-address", "18000"}, exitUsage, []string{`--xds-address "18000": write host:port or unix:PATH`}},
		{"a port that is none", []string{"extauthz", "--extauthz-address", "127.0.0.1:999999"}, exitUsage, []string{`--extauthz-address "127.0.0.1:999999": the port is a number`}},
		{"a server that is none", []string{"ratelimit", "--xds-servers", "127.0.0.1:1,nowhere"}, exitUsage, []string{`--xds-servers "nowhere": write host:port`}},
		{"a socket without a path", []string{"ratelimit", "--ratelimit-address", "unix:"}, exitUsage, []string{`--ratelimit-address "unix:"`}},
		{"two wrong addresses, told at once", []string{"ratelimit", "--ratelimit-address", "x", "--admin-address", "y"}, exitUsage, []string{`--ratelimit-address "x"`, `--admin-address "y"`}},
		{"a bootstrap whose admin the network reaches", []string{"envoy", "bootstrap", "--envoy-admin-address", "0.0.0.0:9901"}, exitUsage, []string{"--envoy-admin-address 0.0.0.0:9901", "loopback or a socket"}},
		{"a bootstrap with an admin nowhere", []string{"envoy", "bootstrap", "--envoy-admin-address", ":9901"}, exitUsage, []string{"--envoy-admin-address :9901", "loopback"}},
		{"status of no address", []string{"status", "--admin-address", "9900"}, exitUsage, []string{`--admin-address "9900"`}},
		{"a settings file that is not there", []string{"validate", "--settings", "/none/s.yaml", valid}, exitUsage, []string{"--settings /none/s.yaml", "no such file"}},
		{"a settings file that is no YAML", []string{"xds", "-f", valid, "--settings", file(t, "s.yaml", "a: [\n")}, exitUsage, []string{"--settings", "s.yaml"}},
		{"a settings file that names another", []string{"xds", "-f", valid, "--settings", file(t, "s.yaml", "settings: x\n")}, exitUsage, []string{"names no other"}},
		{"an argument where none belongs", []string{"status", "edge-1"}, exitUsage, []string{`"edge-1"`, "see `tollgate status --help`"}},
		{"a key of no file", []string{"keys", "create", "--tenant", "acme"}, exitUsage, []string{"-f FILE", "--keys"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			code, _, stderr := tollgate(t, test.args...)
			if code != test.code {
				t.Errorf("exit %d, want %d\n%s", code, test.code, stderr)
			}
			if test.args[0] == "validate" && strings.Contains(stderr, "-f ") {
				t.Errorf("validate has no -f, but says\n%s", stderr)
			}
			for _, word := range test.says {
				if !strings.Contains(stderr, word) {
					t.Errorf("want %q in\n%s", word, stderr)
				}
			}
		})
	}
}

// TestVersion: which binary this is, by the verb and by the flag.
func TestVersion(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"--version"}} {
		if code, stdout, stderr := tollgate(t, args...); code != exitDone || !strings.HasPrefix(stdout, "tollgate ") || !strings.Contains(stdout, "go1.") || strings.Count(stdout, "\n") != 1 {
			t.Errorf("%q: exit %d\n%s%s", args, code, stdout, stderr)
		}
	}
	t.Setenv("TOLLGATE_VERSION", "1")
	if code, _, stderr := tollgate(t, "validate", file(t, "gateway.yaml", good)); code != exitUsage || !strings.Contains(stderr, "TOLLGATE_VERSION is no setting") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
}

// TestHelpAligns: the texts of the flags stand in one column.
func TestHelpAligns(t *testing.T) {
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		usages := cmd.LocalFlags().FlagUsages()
		column := 0
		for line := range strings.Lines(usages) {
			flag := strings.TrimLeft(line, " ")
			indent := len(line) - len(flag)
			at := strings.Index(flag, "   ")
			if indent > 6 || at < 0 {
				continue
			}
			at += indent + len(flag[at:]) - len(strings.TrimLeft(flag[at:], " "))
			if at = utf8.RuneCountInString(line[:at]); column != 0 && at != column {
				t.Errorf("%s:\n%s", cmd.CommandPath(), usages)
				break
			}
			column = at
		}
		for _, child := range cmd.Commands() {
			walk(child)
		}
	}
	walk(rootCommand())
}

// TestShippedFilesAreValid: what an operator copies is valid as it lies there.
func TestShippedFilesAreValid(t *testing.T) {
	examples, err := filepath.Glob("../../configs/examples/*.yaml")
	if err != nil || len(examples) < 6 {
		t.Fatalf("%v %v", examples, err)
	}
	for _, path := range append(examples, "../../configs/gateway.yaml", "../../configs/compose", "../../configs/compose/gateway.yaml") {
		if code, stdout, stderr := tollgate(t, "validate", "--strict", path); code != exitDone || !strings.HasPrefix(stdout, "valid: ") {
			t.Errorf("%s: exit %d\n%s", path, code, stderr)
		}
	}
}

// TestFolderWithItsKeyStore: the store that `keys create` writes beside the
// gateway file is no gateway file.
func TestFolderWithItsKeyStore(t *testing.T) {
	dir := filepath.Dir(file(t, "gateway.yaml", good))
	if code, _, stderr := tollgate(t, "keys", "create", "-f", dir, "--tenant", "acme", "--permission", "*"); code != exitDone {
		t.Fatal(stderr)
	}
	if _, err := os.Stat(filepath.Join(dir, "keys.yaml")); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := tollgate(t, "validate", dir); code != exitDone {
		t.Errorf("exit %d\n%s", code, stderr)
	}
}

// TestLimitsThatTheReferenceCannotCount are told, and are no fault.
func TestLimitsThatTheReferenceCannotCount(t *testing.T) {
	code, _, stderr := tollgate(t, "validate", "--strict", "../../configs/examples/limits.yaml")
	if code != exitDone || !strings.Contains(stderr, "note: limit plan/pro/2: left out of the reference rate-limit server's config") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
}

// TestKeysSayNothingOfTheFile: its warnings are for `validate`.
func TestKeysSayNothingOfTheFile(t *testing.T) {
	text := strings.Replace(strings.Replace(good, "tenants: [{name: acme}]\n", "", 1), "identity: {",
		"identity: {issuers: [{name: idp, issuer: https://a.example, audiences: [api], jwks: {url: https://a.example/jwks}}], ", 1)
	gateway := file(t, "gateway.yaml", text)
	if code, _, stderr := tollgate(t, "validate", gateway); code != exitDone || !strings.Contains(stderr, "warning: ") {
		t.Fatalf("exit %d, want a warning\n%s", code, stderr)
	}
	if code, _, stderr := tollgate(t, "keys", "list", "-f", gateway); code != exitDone || stderr != "" {
		t.Errorf("exit %d\n%s", code, stderr)
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

// TestReadyForAPerson: what it says to edit is the file that it was given.
func TestReadyForAPerson(t *testing.T) {
	var out strings.Builder
	r := readiness{Listeners: map[string]string{"http": "http://127.0.0.1:1"}, Demo: &demo.Access{APIKey: "k", JWT: "j"}}
	if err := r.say(&out, false, []string{"/etc/a.yaml", "/etc/b"}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Then change /etc/a.yaml or /etc/b and save", "export KEY=k\n", "'http://127.0.0.1:1/api/orders?n=[1-200]'"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("want %q in\n%s", want, out.String())
		}
	}
}
