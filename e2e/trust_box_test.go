package e2e_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/harness"
)

const boxGateway = `version: 1
listeners:
  - {name: http, address: "HTTP"}
  - {name: https, address: "HTTPS", tls: {certs: [{cert: file:edge.crt, key: file:edge.key}]}}
identity:
  api_keys: {header: x-api-key, store: file:keys.yaml}
tenants: [{name: acme}]
upstreams:
  - {name: up, endpoints: ["UP"]}
  - {name: order, discovery: {registry: order}}
  - {name: user, discovery: {registry: user}}
  - {name: far, discovery: {registry: far, allow: [10.0.0.0/8]}}
routes:
  - {name: public, match: {path: {prefix: /public}}, auth: public, upstream: up}
  - {name: api, match: {path: {prefix: /api}}, auth: api_key, upstream: up}
  - {name: order, match: {path: {prefix: /order}}, auth: public, upstream: order}
  - {name: user, match: {path: {prefix: /user}}, auth: public, upstream: user}
  - {name: far, match: {path: {prefix: /far}}, auth: public, upstream: far}
`

// box is the whole gateway as `tollgate run` starts it, in a folder that others
// may look into: nothing but its own modes and sockets protects it.
type box struct {
	*harness.Process
	up        *harness.Upstream
	dir, data string
	admin     string // host:port
	base      string // of the plain listener
	key       string // an API key
	secrets   map[string]string
}

func startBox(t *testing.T, more ...string) *box {
	t.Helper()
	b := &box{dir: harness.TempDir(t)}
	if err := os.Chmod(b.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b.data = filepath.Join(b.dir, ".tollgate")
	cert, private := harness.Certificate(t, "edge.test")
	b.up = harness.NewUpstream(t, "up")
	gateway := strings.NewReplacer("UP", b.up.Address, `"HTTP"`, harness.FreeAddress(t), `"HTTPS"`, harness.FreeAddress(t)).Replace(boxGateway)
	for name, text := range map[string]string{"gateway.yaml": gateway, "edge.crt": cert, "edge.key": private} {
		mode := fs.FileMode(0o644)
		if name == "edge.key" {
			mode = 0o600
		}
		if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(b.dir, "gateway.yaml")
	out, errs, code := harness.Run(t, "keys", "create", "-f", file, "--tenant", "acme", "--permission", "*")
	if code != 0 {
		t.Fatal(errs)
	}
	b.key = strings.TrimSpace(out)
	// As it is started in earnest: Envoy would outlive the process that is killed.
	t.Cleanup(func() {
		if b.Process != nil && b.Ready.PIDs["envoy"] != 0 {
			_ = syscall.Kill(b.Ready.PIDs["envoy"], syscall.SIGKILL)
		}
	})
	b.Process = harness.Start(t, harness.Command{Name: "run", Path: harness.Tollgate(t), Dir: b.dir, Args: append([]string{
		"run", "--json", "-f", file, "--envoy-path", harness.EnvoyPath(t), "--envoy-concurrency", "1", "--admin-address", harness.FreeAddress(t),
	}, more...)}).AwaitReady(t, 30*time.Second)
	b.admin, b.base = strings.TrimPrefix(b.Ready.Admin, "http://"), b.Ready.Listeners["http"]
	b.secrets = map[string]string{"API key": b.key, "TLS key": strings.Split(private, "\n")[1]}
	for _, name := range []string{"admin.token", "registry.token"} {
		data, err := os.ReadFile(filepath.Join(b.data, name))
		if err != nil {
			t.Fatal(err)
		}
		b.secrets[name] = strings.TrimSpace(string(data))
	}
	return b
}

// bearer is a header with what a file of the folder of state holds.
func (b *box) bearer(name string) map[string]string {
	return map[string]string{"Authorization": "Bearer " + b.secrets[name]}
}

// registryToken is that of a service.
func (b *box) registryToken(t *testing.T, service string) map[string]string {
	t.Helper()
	out, errs, code := harness.Run(t, "registry-token", "--service", service, "--data-dir", b.data)
	if code != 0 {
		t.Fatal(errs)
	}
	return withToken(strings.TrimSpace(out))
}

// registry is where an instance registers.
func (b *box) registry(service, instance string) string {
	return "http://" + b.admin + "/v1/registry/" + service + "/" + instance
}

// must is what came of an attempt that got an answer.
func (a attempt) must(t *testing.T) gained {
	t.Helper()
	r, err := a.try()
	if err != nil {
		t.Fatalf("%s %s: %v", a.Do, a.Target, err)
	}
	return r
}

// unmoved fails the test when the gateway does not serve as it did, by the same
// processes.
func (b *box) unmoved(t *testing.T) {
	t.Helper()
	for path, header := range map[string]map[string]string{"/public/x": nil, "/api/x": withKey(b.key)} {
		if err := gives(b.base+path, header, http.StatusOK); err != nil {
			t.Error(err)
		}
	}
	if err := gives(b.base+"/api/x", nil, http.StatusUnauthorized); err != nil {
		t.Error(err)
	}
	for name, pid := range b.Ready.PIDs {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err != nil {
			t.Errorf("%s is gone: %v", name, err)
		}
	}
	if status, text, err := harness.Get("http://" + b.admin + "/readyz"); err != nil || status != http.StatusOK || !strings.Contains(text, `"status":"ok"`) {
		t.Errorf("/readyz: %d %s %v", status, text, err)
	}
}

// tells fails the test when a text holds a secret of the gateway.
func (b *box) tells(t *testing.T, who, text string) {
	t.Helper()
	for name, secret := range b.secrets {
		if strings.Contains(text, secret) {
			t.Errorf("%s reads the %s", who, name)
		}
	}
}

// contents are the files below a folder, with what they hold.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		out[path] = d.Type().String()
		if d.Type().IsRegular() {
			data, err := os.ReadFile(path)
			sum := sha256.Sum256(data)
			out[path] = hex.EncodeToString(sum[:])
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// settings and a HEADERS frame of no use: the beginning of any gRPC connection.
const grpcHello = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// TestBoxStranger: another user of the machine reads no file of the gateway,
// changes none, reaches no socket, stops no process, and of the ports only those
// answer that are meant for everybody.
func TestBoxStranger(t *testing.T) {
	b := startBox(t)
	if r := (attempt{Do: "PUT", Target: b.registry("order", "1"), Body: `{"address":"` + b.up.Address + `","ttl_s":300}`, Header: b.registryToken(t, "order")}).must(t); r.Status != http.StatusNoContent {
		t.Fatalf("%+v", r)
	}
	harness.Eventually(t, 5*time.Second, "it is on disk", func() error {
		_, err := os.Stat(filepath.Join(b.data, "registry.json"))
		return err
	})
	before := contents(t, b.dir)
	t.Run("files", func(t *testing.T) {
		var attempts []attempt
		kept := map[string]bool{filepath.Join(b.dir, "gateway.yaml"): true, filepath.Join(b.dir, "edge.crt"): true} // the operator's, open to read
		for path, kind := range before {
			if path == b.dir {
				continue
			}
			tries := []string{"read", "write", "remove"}
			if kind == fs.ModeDir.String() {
				tries = []string{"list", "create", "remove"}
			} else if !strings.Contains(path, ".tollgate") && kept[path] {
				tries = []string{"write", "remove"}
			}
			for _, do := range tries {
				attempts = append(attempts, attempt{Do: do, Target: path})
			}
		}
		attempts = append(attempts, attempt{Do: "create", Target: b.dir})
		for _, must := range []string{"admin.token", "registry.token", "registry.json", "identity.key", "envoy.json", "last-good", "run", "run/xds.sock", "run/envoy-admin.sock", "run/extauthz.sock", "run/ratelimit.sock"} {
			if path := filepath.Join(b.data, must); !slices.ContainsFunc(attempts, func(a attempt) bool { return a.Target == path }) {
				t.Errorf("%s is not there to be tried: %v", must, before)
			}
		}
		for i, r := range asStranger(t, attempts) {
			if !strings.Contains(r.Err, "permission denied") {
				t.Errorf("%s %s: %+v", attempts[i].Do, attempts[i].Target, r)
			}
		}
	})
	t.Run("sockets", func(t *testing.T) { strangerAtSockets(t, b) })
	t.Run("ports", func(t *testing.T) { strangerAtPorts(t, b) })
	t.Run("processes", func(t *testing.T) {
		var attempts []attempt
		for _, pid := range b.Ready.PIDs {
			attempts = append(attempts, attempt{Do: "kill", Target: strconv.Itoa(pid)})
			for _, file := range []string{"environ", "mem", "maps", "fd", "root"} {
				attempts = append(attempts, attempt{Do: "read", Target: fmt.Sprintf("/proc/%d/%s", pid, file)})
			}
			// Everybody may see how a process was started.
			data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if err != nil {
				t.Fatal(err)
			}
			b.tells(t, "who lists processes", string(data))
		}
		for i, r := range asStranger(t, attempts) {
			if !strings.Contains(r.Err, "not permitted") && !strings.Contains(r.Err, "permission denied") {
				t.Errorf("%s %s: %+v", attempts[i].Do, attempts[i].Target, r)
			}
		}
	})
	b.unmoved(t)
	after := contents(t, b.dir)
	for path, sum := range before {
		if after[path] != sum {
			t.Errorf("%s was changed", path)
		}
	}
	if len(after) != len(before) {
		t.Errorf("files before: %v\nafter: %v", before, after)
	}
	b.tells(t, "who reads the log", b.Log())
}

// strangerAtSockets: he is kept away by the folder; where a careless hand opened
// it, by the kernel's word for who he is, and that is in the log. Envoy, which
// asks nobody's name, is behind the mode of its socket alone.
func strangerAtSockets(t *testing.T, b *box) {
	run := filepath.Join(b.data, "run")
	ours := []string{"xds.sock", "extauthz.sock", "ratelimit.sock"}
	var attempts []attempt
	for _, name := range append([]string{"envoy-admin.sock"}, ours...) {
		for _, hello := range []string{grpcHello, "GET /config_dump HTTP/1.1\r\nHost: x\r\n\r\n", "POST /quitquitquit HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"} {
			attempts = append(attempts, attempt{Do: "connect", Target: filepath.Join(run, name), Body: hello})
		}
	}
	for i, r := range asStranger(t, attempts) {
		if !strings.Contains(r.Err, "permission denied") || r.Got != "" {
			t.Errorf("%s: %+v", attempts[i].Target, r)
		}
	}
	for _, dir := range []string{b.data, run} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(dir, 0o700)
	}
	for i, r := range asStranger(t, attempts) {
		if !strings.Contains(r.Err, "permission denied") || r.Got != "" {
			t.Errorf("%s in an open folder: %+v", attempts[i].Target, r)
		}
	}
	for _, name := range ours {
		if err := os.Chmod(filepath.Join(run, name), 0o666); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(filepath.Join(run, name), 0o600)
	}
	attempts = attempts[3:]
	for i, r := range asStranger(t, attempts) {
		if r.Got != "" || r.Err == "" || strings.Contains(r.Err, "timeout") {
			t.Errorf("%s, opened: %+v", attempts[i].Target, r)
		}
	}
	for _, name := range ours {
		said := func() error {
			for line := range strings.Lines(b.Log()) {
				if containsAll(line, `"connection refused`, name, `"uid":`+strconv.Itoa(stranger)) {
					return nil
				}
			}
			return fmt.Errorf("%s", b.Log())
		}
		harness.Eventually(t, 5*time.Second, "the log says who was at "+name, said)
	}
}

// strangerAtPorts: nothing listens but the listeners and the admin address, and
// that one shows health and figures to whom has no token.
func strangerAtPorts(t *testing.T, b *box) {
	portOf := func(url string) string {
		_, port, err := net.SplitHostPort(strings.TrimPrefix(strings.TrimPrefix(url, "http://"), "https://"))
		if err != nil {
			t.Fatal(err)
		}
		return port
	}
	want := []string{portOf(b.admin), portOf(b.base), portOf(b.Ready.Listeners["https"])}
	slices.Sort(want)
	if got := listening(t, b.Ready.PIDs["tollgate"], b.Ready.PIDs["envoy"]); !slices.Equal(got, want) {
		t.Errorf("ports %v are open, want %v", got, want)
	}
	url := "http://" + b.admin
	guess := map[string]string{"Authorization": "Bearer " + strings.Repeat("0", 64)}
	registration := `{"address":"127.0.0.1:` + portOf(b.admin) + `"}`
	type row struct {
		attempt
		status int
	}
	rows := []row{
		{attempt{Do: "GET", Target: url + "/healthz"}, 200},
		{attempt{Do: "GET", Target: url + "/readyz"}, 200},
		{attempt{Do: "GET", Target: url + "/metrics"}, 200},
		{attempt{Do: "GET", Target: url + "/metrics/envoy"}, 200},
		{attempt{Do: "GET", Target: url + "/v1/status"}, 401},
		{attempt{Do: "GET", Target: url + "/v1/status", Header: guess}, 401},
		{attempt{Do: "GET", Target: url + "/v1/status", Header: map[string]string{"Authorization": "Bearer "}}, 401},
		{attempt{Do: "GET", Target: url + "/v1/registry"}, 401},
		{attempt{Do: "POST", Target: url + "/v1/resend?node=edge"}, 401},
		{attempt{Do: "PUT", Target: url + "/v1/registry/order/1", Body: registration}, 401},
		{attempt{Do: "PUT", Target: url + "/v1/registry/order/1", Body: registration, Header: guess}, 401},
		{attempt{Do: "DELETE", Target: url + "/v1/registry/order/1", Header: guess}, 401},
		{attempt{Do: "GET", Target: url + "/debug/pprof/"}, 401},
		{attempt{Do: "GET", Target: url + "/debug/pprof/heap?debug=2"}, 401},
		{attempt{Do: "GET", Target: url + "/debug/pprof/cmdline"}, 401},
		{attempt{Do: "POST", Target: url + "/debug/pprof/symbol", Body: "0x1"}, 405},
		{attempt{Do: "POST", Target: url + "/v1/join", Body: "{}"}, 401},
		{attempt{Do: "POST", Target: url + "/quitquitquit"}, 404},
		{attempt{Do: "GET", Target: url + "/config_dump"}, 404},
		{attempt{Do: "GET", Target: url + "/metrics/envoy/../../config_dump"}, 404},
		{attempt{Do: "POST", Target: url + "/metrics/envoy"}, 405},
	}
	attempts := make([]attempt, 0, len(rows))
	for _, r := range rows {
		attempts = append(attempts, r.attempt)
	}
	for i, r := range asStranger(t, attempts) {
		if r.Status != rows[i].status || r.Err != "" {
			t.Errorf("%s %s: %d %s %s, want %d", rows[i].Do, rows[i].Target, r.Status, r.Err, r.Got, rows[i].status)
		}
		b.tells(t, rows[i].Target, r.Got)
		if r.Status != http.StatusUnauthorized {
			continue
		}
		path, _, _ := strings.Cut(strings.TrimPrefix(rows[i].Target, url), "?")
		if name, registry := strings.CutPrefix(path, "/v1/registry/"); registry {
			path = name
		}
		if !containsAll(b.Log(), `"method":"`+rows[i].Do+`","resource":"`+path+`"`) {
			t.Errorf("%s %s is not in the log", rows[i].Do, path)
		}
	}
}
