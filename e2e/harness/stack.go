package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options say what a stack is made of. The zero value of a count is one.
type Options struct {
	// Gateway is the gateway file. "${name}" in it is replaced from Vars, else
	// by a free address that stays the same for the life of the stack.
	Gateway   string
	Vars      map[string]string
	Files     map[string]string // further files in the same folder
	Keys      []Key             // created before anything starts
	ExtAuthz  int
	RateLimit int
	RedisURL  string // "": each limiter counts for itself
	Workers   int    // of Envoy
	Spy       bool   // record what Envoy asks ext_authz
	NoEnvoy   bool
}

// Key is an API key to create.
type Key struct {
	Name        string // how the test asks for its secret
	Tenant      string
	Owner       string
	Permissions []string
}

// Stack is a gateway made of single roles, each a process of its own.
type Stack struct {
	Dir       string
	File      string // the gateway file
	Issuer    *Issuer
	Spy       *Spy
	XDS       *Process
	ExtAuthz  []*Process
	RateLimit []*Process
	Envoy     *Proxy
	Secrets   map[string]string // of Options.Keys, by name

	options   Options
	mu        sync.Mutex
	addresses map[string]string
}

// onSocket are the names of our own servers.
var onSocket = regexp.MustCompile(`^(extauthz|ratelimit)-\d+$`)

// role knows the flags of one role.
type role struct{ verb, flag string }

// NewStack starts a gateway and waits until it serves.
func NewStack(t TB, o Options) *Stack {
	t.Helper()
	s := &Stack{Dir: TempDir(t), options: o, addresses: map[string]string{}, Secrets: map[string]string{}}
	s.File = filepath.Join(s.Dir, "gateway.yaml")
	s.Issuer = NewIssuer(t)
	s.write(t, "jwks.json", string(s.Issuer.JWKS()))
	for name, text := range o.Files {
		s.write(t, name, text)
	}
	s.Save(t, o.Gateway)
	for _, key := range o.Keys {
		s.Secrets[key.Name] = s.CreateKey(t, key)
	}
	s.startControlPlane(t)
	for i := range max(o.ExtAuthz, 1) {
		s.ExtAuthz = append(s.ExtAuthz, s.startRole(t, role{"extauthz", "--extauthz-address"}, i))
	}
	for i := range max(o.RateLimit, 1) {
		s.RateLimit = append(s.RateLimit, s.startRole(t, role{"ratelimit", "--ratelimit-address"}, i))
	}
	for _, p := range append(append([]*Process{s.XDS}, s.ExtAuthz...), s.RateLimit...) {
		p.AwaitReady(t, 20*time.Second)
	}
	for _, p := range append(append([]*Process{}, s.ExtAuthz...), s.RateLimit...) {
		s.awaitRole(t, p)
	}
	if !o.NoEnvoy {
		s.Envoy = StartProxy(t, ProxyOptions{Dir: s.Dir, XDS: []string{s.Address(t, "xds")}, NodeID: "edge-1", Workers: max(o.Workers, 1)})
		s.Envoy.AwaitLive(t)
		for _, name := range s.listeners() {
			AwaitListening(t, s.Address(t, name))
		}
	}
	return s
}

func (s *Stack) startControlPlane(t TB) {
	t.Helper()
	s.XDS = Start(t, Command{Name: "xds", Path: Tollgate(t), Args: s.controlPlaneArgs(t)})
}

func (s *Stack) controlPlaneArgs(t TB) []string {
	t.Helper()
	authz := s.replicas(t, "extauthz", s.options.ExtAuthz)
	if s.options.Spy {
		if s.Spy == nil {
			s.Spy = NewSpy(t, s.Address(t, "spy"), authz[0])
		}
		authz = []string{s.Spy.Address}
	}
	return []string{
		"xds", "--json", "-f", s.File, "--data-dir", s.DataDir(), "--xds-address", s.Address(t, "xds"), "--admin-address", s.Address(t, "admin"),
		"--extauthz-servers", strings.Join(authz, ","),
		"--ratelimit-servers", strings.Join(s.replicas(t, "ratelimit", s.options.RateLimit), ","),
	}
}

func (s *Stack) startRole(t TB, r role, i int) *Process {
	t.Helper()
	name := fmt.Sprintf("%s-%d", r.verb, i)
	args := []string{
		r.verb, "--json", "--xds-servers", s.Address(t, "xds"), r.flag, s.Address(t, name),
		"--admin-address", s.Address(t, name+"-admin"), "--node-id", name, "--data-dir", s.DataDir(),
	}
	if r.verb == "extauthz" {
		args = append(args, "--keys", filepath.Join(s.Dir, "keys.yaml"))
	} else if s.options.RedisURL != "" {
		args = append(args, "--redis-url", s.options.RedisURL)
	}
	return Start(t, Command{Name: name, Path: Tollgate(t), Args: args})
}

func (s *Stack) awaitRole(t TB, p *Process) {
	t.Helper()
	Eventually(t, 15*time.Second, p.Name+" has its configuration", func() error {
		status, body, err := Get("http://" + strings.TrimPrefix(p.Ready.Admin, "http://") + "/readyz")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("/readyz says %d %s", status, body)
		}
		return err
	})
}

// RestartControlPlane starts the control plane again, on the same addresses.
func (s *Stack) RestartControlPlane(t TB) {
	t.Helper()
	s.XDS.Kill()
	s.startControlPlane(t)
	s.XDS.AwaitReady(t, 20*time.Second)
}

// RestartExtAuthz starts replica i again, on the same address.
func (s *Stack) RestartExtAuthz(t TB, i int) {
	t.Helper()
	s.ExtAuthz[i].Kill()
	s.ExtAuthz[i] = s.startRole(t, role{"extauthz", "--extauthz-address"}, i).AwaitReady(t, 20*time.Second)
	s.awaitRole(t, s.ExtAuthz[i])
}

// RestartRateLimit starts replica i again, on the same address.
func (s *Stack) RestartRateLimit(t TB, i int) {
	t.Helper()
	s.RateLimit[i].Kill()
	s.RateLimit[i] = s.startRole(t, role{"ratelimit", "--ratelimit-address"}, i).AwaitReady(t, 20*time.Second)
	s.awaitRole(t, s.RateLimit[i])
}

// DataDir is where the stack's roles keep their state.
func (s *Stack) DataDir() string { return filepath.Join(s.Dir, ".tollgate") }

// Address returns the address behind a name: "xds", "admin", "extauthz-0",
// "ratelimit-1", or what the gateway file calls it.
func (s *Stack) Address(t TB, name string) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	address, ok := s.addresses[name]
	if !ok {
		// Our own parts meet on sockets, as shipped.
		if name == "xds" || name == "spy" || onSocket.MatchString(name) {
			address = "unix:" + filepath.Join(s.DataDir(), "run", name+".sock")
		} else {
			address = FreeAddress(t)
		}
		s.addresses[name] = address
	}
	return address
}

// URL is that of the listener whose address is "${http}", with a path.
func (s *Stack) URL(path string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return "http://" + s.addresses["http"] + path
}

func (s *Stack) replicas(t TB, verb string, n int) []string {
	t.Helper()
	var addresses []string
	for i := range max(n, 1) {
		addresses = append(addresses, s.Address(t, fmt.Sprintf("%s-%d", verb, i)))
	}
	return addresses
}

// listeners are the names of the addresses that the gateway file asked for
// under "http" or "https".
func (s *Stack) listeners() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, name := range []string{"http", "https"} {
		if _, ok := s.addresses[name]; ok {
			names = append(names, name)
		}
	}
	return names
}

// Expand replaces "${name}" as in Options.Gateway.
func (s *Stack) Expand(t TB, text string) string {
	t.Helper()
	return regexp.MustCompile(`\$\{[a-z0-9_-]+\}`).ReplaceAllStringFunc(text, func(m string) string {
		name := m[2 : len(m)-1]
		if value, ok := s.options.Vars[name]; ok {
			return value
		}
		return s.Address(t, name)
	})
}

// Save replaces the gateway file as an editor does, by rename.
func (s *Stack) Save(t TB, text string) {
	t.Helper()
	s.write(t, "gateway.yaml", s.Expand(t, text))
}

func (s *Stack) write(t TB, name, text string) {
	t.Helper()
	path := filepath.Join(s.Dir, name)
	if err := os.WriteFile(path+"~", []byte(text), 0o600); err != nil {
		t.Fatalf("write %s: %v", name, err)
	}
	if err := os.Rename(path+"~", path); err != nil {
		t.Fatalf("write %s: %v", name, err)
	}
}

// CreateKey makes an API key with our command line and returns its secret.
func (s *Stack) CreateKey(t TB, key Key) string {
	t.Helper()
	args := []string{"keys", "create", "-f", s.File, "--tenant", key.Tenant, "--json"}
	for _, permission := range key.Permissions {
		args = append(args, "--permission", permission)
	}
	if key.Owner != "" {
		args = append(args, "--owner", key.Owner)
	}
	out, errs, code := Run(t, args...)
	var created map[string]any
	if err := json.Unmarshal([]byte(out), &created); err != nil || code != 0 {
		t.Fatalf("tollgate keys create: exit %d, %v\n%s%s", code, err, out, errs)
	}
	for _, name := range []string{"key", "secret"} {
		if secret, ok := created[name].(string); ok && secret != "" {
			return secret
		}
	}
	t.Fatalf("tollgate keys create --json printed no key: %s", out)
	return ""
}

// Status is what the control plane says of its clients, as `tollgate status
// --json` prints it.
func (s *Stack) Status(t TB) string {
	t.Helper()
	out, errs, _ := Run(t, "status", "--admin-address", s.Address(t, "admin"), "--data-dir", s.DataDir())
	return out + errs
}

// Readyz returns the control plane's status word and body.
func (s *Stack) Readyz(t TB) (int, string) {
	t.Helper()
	status, body, err := Get("http://" + s.Address(t, "admin") + "/readyz")
	if err != nil {
		t.Fatalf("/readyz: %v", err)
	}
	return status, body
}

// AwaitListening waits until something accepts connections.
func AwaitListening(t TB, address string) {
	t.Helper()
	Eventually(t, 20*time.Second, "something listens on "+address, func() error {
		c, err := net.DialTimeout("tcp", address, time.Second) //nolint:noctx // bounded by its timeout
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// Get fetches a URL with a client of its own. That of a socket is written
// http://unix:/path/of.sock/path.
func Get(url string) (int, string, error) {
	transport := &http.Transport{DisableKeepAlives: true}
	if rest, ok := strings.CutPrefix(url, "http://unix:"); ok {
		i := strings.Index(rest, ".sock") + len(".sock")
		path := rest[:i]
		url = "http://localhost" + rest[i:]
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}
	}
	client := &http.Client{Timeout: 3 * time.Second, Transport: transport}
	response, err := client.Get(url) //nolint:noctx // bounded by its timeout
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 8<<20))
	return response.StatusCode, string(body), err
}

// Metric returns the sum of a metric's samples on an admin address whose line
// holds all of the given words.
func Metric(t TB, admin string, words ...string) float64 {
	t.Helper()
	_, body, err := Get("http://" + admin + "/metrics")
	if err != nil {
		t.Fatalf("metrics: %v", err)
	}
	sum := 0.0
lines:
	for line := range strings.Lines(body) {
		for _, word := range words {
			if strings.HasPrefix(line, "#") || !strings.Contains(line, word) {
				continue lines
			}
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(strings.TrimSpace(line), ' ')+1:]), 64)
		if err != nil {
			t.Fatalf("metric %q: %v", line, errors.Unwrap(err))
		}
		sum += value
	}
	return sum
}
