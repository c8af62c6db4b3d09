package push_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"tollgate/envoy"
	"tollgate/xds/compile"
	"tollgate/xds/config"
	"tollgate/xds/config/language"
	"tollgate/xds/endpoint"
	"tollgate/xds/ledger"
	"tollgate/xds/release"
)

// nameServer is a DNS server on an address of its own of the loopback network.
type nameServer struct {
	address string
	asked   atomic.Int64
	host    atomic.Uint32 // of 127.0.0.0/24, its answer
	wg      sync.WaitGroup
}

// answers says what a name server does with the n-th question (from 0): an
// answer after some time, a code without one, or nothing.
type answers func(n int64) (after time.Duration, code dnsmessage.RCode, silent bool)

func newNameServer(t *testing.T, how answers) *nameServer {
	t.Helper()
	for n := range 200 {
		s := &nameServer{address: fmt.Sprintf("127.53.%d.%d", os.Getpid()%250+1, n+1)}
		s.host.Store(1)
		conn, err := net.ListenPacket("udp", s.address+":53")
		if err != nil {
			continue
		}
		s.wg.Go(func() { s.serve(conn, how) })
		t.Cleanup(func() { _ = conn.Close(); s.wg.Wait() })
		return s
	}
	t.Fatal("no address for a name server: port 53 needs root")
	return nil
}

func (s *nameServer) serve(conn net.PacketConn, how answers) {
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var p dnsmessage.Parser
		header, err := p.Start(buf[:n])
		if err != nil {
			continue
		}
		question, err := p.Question()
		if err != nil {
			continue
		}
		after, code, silent := how(s.asked.Add(1) - 1)
		if silent {
			continue
		}
		m := dnsmessage.Message{
			Header:    dnsmessage.Header{ID: header.ID, Response: true, Authoritative: true, RecursionAvailable: true, RCode: code},
			Questions: []dnsmessage.Question{question},
		}
		if code == dnsmessage.RCodeSuccess && question.Type == dnsmessage.TypeA {
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: question.Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 1},
				Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, byte(s.host.Load())}},
			}}
		}
		out, err := m.Pack()
		if err != nil {
			continue
		}
		s.wg.Go(func() {
			time.Sleep(after)
			_, _ = conn.WriteTo(out, from)
		})
	}
}

// proxyWithNames is a real Envoy with a name server of its own.
type proxyWithNames struct {
	t         *testing.T
	bootstrap string
	resolv    string
	path      string
	cmd       *exec.Cmd
}

func newProxyWithNames(t *testing.T, xds, nameServer string) *proxyWithNames {
	t.Helper()
	p := &proxyWithNames{t: t}
	var err error
	if p.path, err = envoy.Locate(t.Context(), os.Getenv("TOLLGATE_ENVOY"), filepath.Join("..", "..")); err != nil {
		t.Fatalf("the tests run on the real Envoy: %v", err)
	}
	text, err := envoy.Bootstrap{NodeID: "edge-1", XDSServers: []string{xds}, AdminAddress: freePort(t)}.JSON()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p.bootstrap, p.resolv = filepath.Join(dir, "bootstrap.json"), filepath.Join(dir, "resolv.conf")
	for name, content := range map[string]string{p.bootstrap: string(text), p.resolv: "nameserver " + nameServer + "\n"} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(p.stop)
	return p
}

// start runs it in a mount namespace in which /etc/resolv.conf is its own.
func (p *proxyWithNames) start() {
	p.t.Helper()
	p.cmd = exec.Command("unshare", "--mount", "sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, p.resolv,
		p.path, "-c", p.bootstrap, "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "error")
	p.cmd.Stderr = p.t.Output()
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *proxyWithNames) stop() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

// named is a gateway with an upstream of every kind, one of them by name.
func named(t *testing.T, listener, static, registered string, port uint16, byName bool) *release.Release {
	t.Helper()
	text := gateway(listener, fmt.Sprintf(`upstreams:
  - {name: static, endpoints: ["%s"]}
  - {name: registered, discovery: {registry: registered}}
  - {name: dns, discovery: {dns: "backend.corp.test:%d"}}
routes:
  - {name: s, match: {path: {prefix: /static}}, auth: public, upstream: static}
  - {name: r, match: {path: {prefix: /registered}}, auth: public, upstream: registered}
  - {name: d, match: {path: {prefix: /dns}}, auth: public, upstream: dns}`, static, port))
	gw, _, err := language.Parse([]config.Source{{Name: "gateway.yaml", Data: []byte(text)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	scope := compile.Scope{ExtAuthz: []string{"127.0.0.1:9"}, RateLimit: []string{"127.0.0.1:9"}}
	if byName {
		scope.ExtAuthz = []string{"roles.corp.test:9"}
	}
	objects, _ := compile.Compile(gw, scope)
	known := endpoint.Instances{"registered": {{ID: "1", Address: netip.MustParseAddrPort(registered), Weight: 1}}}
	return made(t, objects, endpoint.Objects(gw.Upstreams, known))
}

// TestNames: a name that resolves late, wrongly or never harms its own upstream
// only: once the listener is up, every upstream that can serve does, on a first
// start, on a restart and after the control plane came back.
func TestNames(t *testing.T) {
	code := func(c dnsmessage.RCode) answers {
		return func(int64) (time.Duration, dnsmessage.RCode, bool) { return 0, c, false }
	}
	late := func(after time.Duration) answers {
		return func(int64) (time.Duration, dnsmessage.RCode, bool) { return after, dnsmessage.RCodeSuccess, false }
	}
	for _, c := range []struct {
		name    string
		how     answers
		resolve bool
	}{
		{"at once", late(0), true},
		{"after 500 ms", late(500 * time.Millisecond), true},
		{"NXDOMAIN", code(dnsmessage.RCodeNameError), false},
		{"SERVFAIL", code(dnsmessage.RCodeServerFailure), false},
		{"never", func(int64) (time.Duration, dnsmessage.RCode, bool) { return 0, dnsmessage.RCodeSuccess, true }, false},
	} {
		for _, byName := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, roles by name %t", c.name, byName), func(t *testing.T) {
				t.Parallel()
				namesCell(t, c.how, byName, c.resolve)
			})
		}
	}
}

func namesCell(t *testing.T, how answers, byName, resolve bool) {
	t.Helper()
	server := newNameServer(t, how)
	one, two, three, listener := backend(t, "static"), backend(t, "registered"), backend(t, "dns"), freePort(t)
	r := named(t, listener, one, two, netip.MustParseAddrPort(three).Port(), byName)
	plane := newPlane(t, "127.0.0.1:0")
	plane.Publish(r)
	proxy := newProxyWithNames(t, plane.address, server.address)
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(what string) string {
		response, err := client.Get("http://" + listener + "/" + what)
		if err != nil {
			return ""
		}
		defer func() { _ = response.Body.Close() }()
		body, _ := io.ReadAll(response.Body)
		return string(body)
	}
	serves := func(when string) {
		t.Helper()
		within(t, 60*time.Second, when+": the listener is up", func() bool {
			conn, err := net.DialTimeout("tcp", listener, time.Second)
			if err == nil {
				_ = conn.Close()
			}
			return err == nil
		})
		up := time.Now()
		for _, what := range []string{"static", "registered"} {
			within(t, soon, when+": "+what, func() bool { return get(what) == what })
		}
		t.Logf("%s: all that can serve does after %s", when, time.Since(up))
		if resolve {
			within(t, 10*time.Second, when+": dns", func() bool { return get("dns") == "dns" })
		}
	}
	proxy.start()
	serves("first start")
	proxy.stop()
	proxy.start()
	serves("restart")
	plane.stop()
	again := newPlane(t, plane.address)
	again.Publish(r)
	within(t, 20*time.Second, "reconnect", func() bool { return again.connected(t) })
	serves("the control plane came back")
	proxy.stop()
	proxy.start()
	serves("restart at the new control plane")
	within(t, 30*time.Second, "all is taken", func() bool { return again.states()["clusterloadassignment"] == ledger.Synced })
}

// soon is 1 s, and what a loaded machine adds.
const soon = 3 * time.Second

// TestNameChangesItsAnswer: where a name leads elsewhere the upstream follows
// within seconds; while it leads nowhere, or is not answered, it stays where it
// was. No request fails meanwhile, and no other upstream notices.
func TestNameChangesItsAnswer(t *testing.T) {
	t.Parallel()
	var code atomic.Uint32
	var silent atomic.Bool
	server := newNameServer(t, func(int64) (time.Duration, dnsmessage.RCode, bool) {
		return 0, dnsmessage.RCode(code.Load()), silent.Load()
	})
	one, two, three, listener := backend(t, "static"), backend(t, "registered"), backend(t, "dns"), freePort(t)
	port := netip.MustParseAddrPort(three).Port()
	elsewhere, err := net.Listen("tcp", fmt.Sprintf("127.0.0.2:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	moved := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "moved") }), ReadHeaderTimeout: time.Second}
	go func() { _ = moved.Serve(elsewhere) }()
	t.Cleanup(func() { _ = moved.Close() })
	plane := newPlane(t, "127.0.0.1:0")
	plane.Publish(named(t, listener, one, two, port, false))
	proxy := newProxyWithNames(t, plane.address, server.address)
	proxy.start()
	client := &http.Client{Timeout: 2 * time.Second}
	get := func(what string) string {
		response, err := client.Get("http://" + listener + "/" + what)
		if err != nil {
			return err.Error()
		}
		defer func() { _ = response.Body.Close() }()
		body, _ := io.ReadAll(response.Body)
		return string(body)
	}
	within(t, 60*time.Second, "the name is resolved", func() bool { return get("dns") == "dns" })
	// follow asks until the upstream is there, and for a while then.
	follow := func(when, from, to string, stay time.Duration) {
		t.Helper()
		var moved time.Time
		for start := time.Now(); moved.IsZero() || time.Since(moved) < stay; time.Sleep(10 * time.Millisecond) {
			got := get("dns")
			if got == to && moved.IsZero() {
				moved = time.Now()
				t.Logf("%s: after %s", when, moved.Sub(start))
			}
			if got != to && (got != from || !moved.IsZero()) {
				t.Fatalf("%s: %q after %s", when, got, time.Since(start))
			}
			if s := get("static"); s != "static" {
				t.Fatalf("%s: another upstream says %q", when, s)
			}
			if moved.IsZero() && time.Since(start) > 15*time.Second {
				t.Fatalf("%s: still %q", when, got)
			}
		}
	}
	server.host.Store(2)
	follow("it leads elsewhere", "dns", "moved", 0)
	code.Store(uint32(dnsmessage.RCodeServerFailure))
	follow("SERVFAIL", "moved", "moved", 3*time.Second)
	code.Store(uint32(dnsmessage.RCodeSuccess))
	silent.Store(true)
	follow("no answer", "moved", "moved", 5*time.Second)
	silent.Store(false)
	server.host.Store(1)
	follow("back", "moved", "dns", 0)
}
