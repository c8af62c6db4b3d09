package e2e_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
)

const loggedGateway = `version: 1
listeners:
  - {name: http, address: "${http}"}
identity: {api_keys: {header: x-api-key, store: file:keys.yaml}}
tenants: [{name: acme, plan: free}]
plans: [{name: free}]
upstreams: [{name: up, endpoints: ["${up}"]}]
routes:
  - {name: open, match: {path: {prefix: /open}}, auth: public, upstream: up}
  - {name: keyed, match: {path: {prefix: /keyed}}, auth: api_key, upstream: up}
  - name: once
    match: {path: {prefix: /once}}
    auth: api_key
    authorize: [{permission: "orders:read", methods: [GET]}]
    rate_limit: [{name: one, limit: 1, per: day, by: [user]}]
    upstream: up
`

// logged is a whole gateway whose standard error is a pipe of the test's.
type logged struct {
	*harness.Process
	url, file string
	stderr    *os.File
	keys      map[string]string
}

func startLogged(t *testing.T, listen string, keys ...string) *logged {
	t.Helper()
	up := harness.NewUpstream(t, "up")
	file := writeGateway(t, strings.NewReplacer("${http}", listen, "${up}", up.Address).Replace(loggedGateway))
	l := &logged{url: "http://" + listen, file: file, keys: map[string]string{}}
	for _, name := range keys {
		out, errs, code := harness.Run(t, "keys", "create", "-f", file, "--tenant", "acme", "--owner", name, "--permission", "orders:read", "--json")
		var created struct{ Key string }
		if err := json.Unmarshal([]byte(out), &created); err != nil || code != 0 || created.Key == "" {
			t.Fatalf("keys create: %d %s%s", code, out, errs)
		}
		l.keys[name] = created.Key
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = reader.Close() })
	args := []string{"run", "--json", "-f", file, "--envoy-path", harness.EnvoyPath(t), "--admin-address", harness.FreeAddress(t)}
	l.Process = harness.Start(t, harness.Command{Name: "run", Path: harness.Tollgate(t), Args: args, Dir: filepath.Dir(file), Stderr: writer})
	_ = writer.Close()
	t.Cleanup(func() {
		// Killed, it would leave its Envoy to the next start.
		if l.Alive() {
			l.Terminate(t, 15*time.Second)
		}
	})
	l.stderr = reader
	l.AwaitReady(t, 30*time.Second)
	return l
}

// waiting is how many bytes the pipe holds.
func (l *logged) waiting(t *testing.T) int {
	t.Helper()
	n, err := unix.IoctlGetInt(int(l.stderr.Fd()), unix.TIOCINQ)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// free6 is a free address of IPv6 loopback.
func free6(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// stall is how long a reader of the log stands still.
const stall = time.Minute

// TestStalledLogReader: whoever reads our standard error stops for a minute.
// Nobody who calls notices, a revocation counts at once, what was lost is
// counted, and the log comes back with its reader.
func TestStalledLogReader(t *testing.T) {
	t.Parallel() // it waits, mostly
	l := startLogged(t, harness.FreeAddress(t), "ann", "bob")
	full := 0
	harness.Eventually(t, 60*time.Second, "the pipe is full", func() error {
		traffic.Run(traffic.Load{Request: traffic.Request{URL: l.url + "/open/" + strings.Repeat("x", 500)}, Workers: 4, Count: 200})
		if n := l.waiting(t); n < 60_000 || n != full {
			full = n
			return os.ErrDeadlineExceeded
		}
		return nil
	})
	// What waits in the process fills up as well, until lines are dropped.
	harness.Eventually(t, 60*time.Second, "lines are dropped", func() error {
		traffic.Run(traffic.Load{Request: traffic.Request{URL: l.url + "/open/" + strings.Repeat("x", 900)}, Workers: 8, Count: 2000})
		if harness.Metric(t, strings.TrimPrefix(l.Ready.Admin, "http://"), "tollgate_log_dropped_lines_total") == 0 {
			return os.ErrDeadlineExceeded
		}
		return nil
	})
	load := func(path, key string) *traffic.Running {
		return traffic.Start(traffic.Load{Request: traffic.Request{URL: l.url + path, Header: withKey(key)}, Rate: 50, Duration: 2 * stall})
	}
	begun := time.Now()
	public, keyed, denied := load("/open", ""), load("/keyed", l.keys["ann"]), load("/keyed", "wrong")
	time.Sleep(stall / 2)
	revoke(t, l.file, "bob")
	client := traffic.NewClient(1)
	took := harness.Eventually(t, 5*time.Second, "the revocation counts", func() error {
		if a := (traffic.Request{URL: l.url + "/keyed", Header: withKey(l.keys["bob"])}).Do(t, client); a.Status != http.StatusUnauthorized {
			return os.ErrDeadlineExceeded
		}
		return nil
	})
	if took > time.Second {
		t.Errorf("the revocation took %s, want at most 1s", took)
	}
	time.Sleep(time.Until(begun.Add(stall)))
	clean(t, "public", public.Stop(), okOnly)
	clean(t, "with a key", keyed.Stop(), okOnly)
	clean(t, "denied", denied.Stop(), http.StatusUnauthorized, http.StatusTooManyRequests)

	// The reader is back.
	var told, torn atomic.Int64
	after := make(chan struct{})
	go func() {
		defer close(after)
		lines := bufio.NewScanner(l.stderr)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			switch {
			case !json.Valid(lines.Bytes()):
				torn.Add(1)
			case bytes.Contains(lines.Bytes(), []byte("log lines dropped")):
				told.Add(1)
			case bytes.Contains(lines.Bytes(), []byte("/open/after")):
				return
			}
		}
	}()
	harness.Eventually(t, 20*time.Second, "the log is back", func() error {
		traffic.Request{URL: l.url + "/open/after"}.Do(t, client)
		select {
		case <-after:
			return nil
		case <-time.After(300 * time.Millisecond):
			return os.ErrDeadlineExceeded
		}
	})
	if told.Load() == 0 || torn.Load() != 0 {
		t.Errorf("%d lines tell of the gap, %d are torn; want some, and none", told.Load(), torn.Load())
	}
}

// revoke marks a key of the file as an editor would.
func revoke(t *testing.T, gateway, owner string) {
	t.Helper()
	path := filepath.Join(filepath.Dir(gateway), "keys.yaml")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(data), "owner: "+owner+"\n", "owner: "+owner+"\n      revoked: 2026-01-01T00:00:00Z\n", 1)
	if text == string(data) {
		t.Fatalf("no key of %s in %s", owner, data)
	}
	if err := os.WriteFile(path+"~", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+"~", path); err != nil {
		t.Fatal(err)
	}
}

// TestReaderOfLogLeaves: whoever read our standard error is gone for good.
func TestReaderOfLogLeaves(t *testing.T) {
	l := startLogged(t, harness.FreeAddress(t), "ann")
	_ = l.stderr.Close()
	clean(t, "denied", traffic.Run(traffic.Load{Request: traffic.Request{URL: l.url + "/keyed"}, Workers: 4, Count: 200}), http.StatusUnauthorized)
	clean(t, "with a key", traffic.Run(traffic.Load{Request: traffic.Request{URL: l.url + "/keyed", Header: withKey(l.keys["ann"])}, Rate: 100, Duration: 2 * time.Second}), okOnly)
	if !l.Alive() {
		t.Error("the gateway died of its log")
	}
}

// TestStoppedReaderOfProxyLog: the process that reads the proxy's log stands
// still. The proxy serves on, does not keep what it cannot write, and is heard
// again.
func TestStoppedReaderOfProxyLog(t *testing.T) {
	l := startLogged(t, harness.FreeAddress(t))
	go func() { _, _ = io.Copy(io.Discard, l.stderr) }()
	proxy := &harness.Proxy{Admin: strings.TrimPrefix(l.Ready.EnvoyAdmin, "http://"), Process: l.Process}
	l.Signal(t, syscall.SIGSTOP)
	t.Cleanup(func() { l.Signal(t, syscall.SIGCONT) })
	lost := func() map[string]int64 { return proxy.Stats(t, `^filesystem\.`) }
	harness.Eventually(t, 60*time.Second, "lines are lost", func() error {
		clean(t, "public", traffic.Run(traffic.Load{Request: traffic.Request{URL: l.url + "/open/" + strings.Repeat("x", 1000)}, Workers: 8, Count: 2000}), okOnly)
		if lost()["filesystem.write_failed"] == 0 {
			return os.ErrDeadlineExceeded
		}
		return nil
	})
	if n := lost()["filesystem.write_total_buffered"]; n > 1<<20 {
		t.Errorf("%d bytes wait in the proxy", n)
	}
	l.Signal(t, syscall.SIGCONT)
	heard := func() int64 { return lost()["filesystem.write_completed"] }
	before := heard()
	harness.Eventually(t, 10*time.Second, "the proxy is heard again", func() error {
		traffic.Run(traffic.Load{Request: traffic.Request{URL: l.url + "/open"}, Count: 10})
		if heard() == before {
			return os.ErrDeadlineExceeded
		}
		return nil
	})
}

// TestFloodsDoNotFillTheLog: what one client is refused by the proxy, the admin
// address and the registry, as fast as it goes, is
// less than 200 kB of log a second, and an honest caller beside them is served.
func TestFloodsDoNotFillTheLog(t *testing.T) {
	for family, listen := range map[string]string{"IPv4": harness.FreeAddress(t), "IPv6": free6(t)} {
		t.Run(family, func(t *testing.T) {
			l := startLogged(t, listen, "ann")
			var written, admitted, summaries atomic.Int64
			go func() {
				lines := bufio.NewScanner(l.stderr)
				lines.Buffer(nil, 1<<20)
				for lines.Scan() {
					written.Add(int64(len(lines.Bytes()) + 1))
					switch {
					case bytes.Contains(lines.Bytes(), []byte(`"status":200`)):
						admitted.Add(1)
					case bytes.Contains(lines.Bytes(), []byte("denials not")), bytes.Contains(lines.Bytes(), []byte("callers that were refused are not")):
						summaries.Add(1)
					}
				}
			}()
			long := strings.Repeat("x", 2000)
			floods := map[string]traffic.Request{"401": {URL: l.url + "/keyed/" + long}, "404": {URL: l.url + "/nothing/" + long}}
			if family == "IPv4" { // as the admin address is
				floods["admin"] = traffic.Request{URL: l.Ready.Admin + "/v1/status?" + long, Header: map[string]string{"origin": "https://" + long}}
				floods["registry"] = traffic.Request{Method: http.MethodPut, URL: l.Ready.Admin + "/v1/registry/" + long + "/1"}
			}
			asked := int64(0)
			for what, flood := range floods {
				before, start := written.Load(), time.Now()
				honest := traffic.Start(traffic.Load{Request: traffic.Request{URL: l.url + "/keyed", Header: withKey(l.keys["ann"])}, Rate: 50, Duration: time.Minute, Timeout: 15 * time.Second})
				end := start.Add(4 * time.Second)
				if !strings.HasPrefix(flood.URL, l.url) {
					end = start.Add(time.Second)
				}
				sent := 0
				for time.Now().Before(end) || sent < 1500 && time.Since(start) < 30*time.Second {
					sent += traffic.Run(traffic.Load{Request: flood, Workers: 4, Count: 500}).Sent
				}
				served := honest.Stop()
				asked += int64(served.Sent)
				clean(t, "honest beside "+what, served, okOnly)
				time.Sleep(time.Second) // what Envoy holds back
				rate := float64(written.Load()-before) / time.Since(start).Seconds()
				t.Logf("%d of %s in %s: %.0f B/s of log", sent, what, time.Since(start), rate)
				if sent < 1000 || rate > 200_000 {
					t.Errorf("%d of %s write %.0f B/s of log, want more than 1000 and less than 200,000", sent, what, rate)
				}
			}
			if n := admitted.Load(); n < asked*9/10 {
				t.Errorf("%d of %d admitted requests are in the log: they are never left out", n, asked)
			}
			for what, part := range map[string]string{"admin": "admin", "registry": "control plane"} {
				if floods[what].URL == "" {
					continue
				}
				if n := harness.Metric(t, strings.TrimPrefix(l.Ready.Admin, "http://"), "tollgate_refusals_not_logged_total", part); n < 1000 {
					t.Errorf("%s: %v refusals are said to be left out of the log", part, n)
				}
			}
			if summaries.Load() == 0 || harness.Metric(t, strings.TrimPrefix(l.Ready.Admin, "http://"), "tollgate_access_log_sampled_out_total") < 1000 {
				t.Error("what was left out is not counted")
			}
		})
	}
}
