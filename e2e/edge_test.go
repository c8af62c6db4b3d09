package e2e_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
)

const edgeGateway = `version: 1
listeners:
  - {name: http, address: "${http}", redirect: https}
  - {name: https, address: "${https}", tls: {certs: [{cert: file:edge.crt, key: file:edge.key}], min_version: "1.3", hsts: 365d}}
  - {name: flooded, address: "${flooded}", flood: {limit: 5, per: minute}}
defaults: {auth: public}
upstreams:
  - {name: up, endpoints: ["${up}"]}
  - {name: copy, endpoints: ["${copy}"]}
routes:
  - {name: live, match: {path: {prefix: /live}}, websocket: true, timeout: none, upstream: up}
  - {name: twice, match: {path: {prefix: /twice}}, upstream: up, mirror: {upstream: copy, percent: 100%}}
  - {name: rest, match: {path: {prefix: /}, methods: [GET, PUT]}, upstream: up, cors: {origins: ["https://app.example"], headers: [x-a], max_age: 10m}}
`

// TestEdge: what faces clients beside routing: TLS, its redirect and HSTS,
// floods, preflights, upgrades, mirrors.
func TestEdge(t *testing.T) {
	cert, key := harness.Certificate(t, "localhost")
	ups := harness.NewUpstreams(t, "up", "copy")
	s := harness.NewStack(t, harness.Options{
		Gateway: edgeGateway, Vars: map[string]string{"up": ups[0].Address, "copy": ups[1].Address},
		Files: map[string]string{"edge.crt": cert, "edge.key": key},
	})
	secure := func(max uint16) *http.Client {
		return &http.Client{
			Timeout:       3 * time.Second,
			Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MaxVersion: max}, DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	https := "https://" + s.Address(t, "https")
	t.Run("plain is sent to TLS", func(t *testing.T) {
		a := traffic.Request{URL: s.URL("/x?y=1")}.Do(t, secure(0))
		if a.Status != http.StatusPermanentRedirect || !strings.HasPrefix(a.Header.Get("location"), "https://") || !strings.HasSuffix(a.Header.Get("location"), "/x?y=1") {
			t.Errorf("%d %s", a.Status, a.Header.Get("location"))
		}
	})
	t.Run("TLS 1.3 with HSTS, 1.2 refused", func(t *testing.T) {
		a := traffic.Request{URL: https + "/x"}.Do(t, secure(0))
		if a.Status != okOnly || !strings.Contains(a.Header.Get("strict-transport-security"), "max-age=31536000") {
			t.Errorf("%d %v", a.Status, a.Header)
		}
		if r, err := secure(tls.VersionTLS12).Get(https + "/x"); err == nil {
			r.Body.Close()
			t.Error("TLS 1.2 was taken")
		}
	})
	t.Run("a preflight is answered, a stranger's is not allowed", func(t *testing.T) {
		reached := ups[0].Count()
		ask := func(origin string) traffic.Answer {
			return traffic.Request{Method: http.MethodOptions, URL: https + "/x", Header: map[string]string{"origin": origin, "access-control-request-method": "PUT"}}.Do(t, secure(0))
		}
		if a := ask("https://app.example"); a.Header.Get("access-control-allow-origin") != "https://app.example" || !strings.Contains(a.Header.Get("access-control-allow-methods"), "PUT") {
			t.Errorf("%d %v", a.Status, a.Header)
		}
		if a := ask("https://evil.example"); a.Header.Get("access-control-allow-origin") != "" {
			t.Errorf("%d %v", a.Status, a.Header)
		}
		if n := ups[0].Count() - reached; n != 0 {
			t.Errorf("%d preflights reached the upstream", n)
		}
	})
	t.Run("a mirror gets a copy", func(t *testing.T) {
		if a := (traffic.Request{URL: https + "/twice"}).Do(t, secure(0)); a.Status != okOnly {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
		harness.Eventually(t, 2*time.Second, "the copy arrives", func() error {
			if ups[1].Count() == 0 {
				return fmt.Errorf("not yet")
			}
			return nil
		})
	})
	t.Run("a flood ends in the proxy", func(t *testing.T) {
		r := traffic.Run(traffic.Load{Request: traffic.Request{URL: "http://" + s.Address(t, "flooded") + "/x"}, Count: 12})
		if r.Status[okOnly] != 5 || r.Status[http.StatusTooManyRequests] != 7 {
			t.Errorf("%s", r)
		}
		wantEnvelope(t, traffic.Request{URL: "http://" + s.Address(t, "flooded") + "/x"}.Do(t, nil), http.StatusTooManyRequests, "RATE_LIMITED", "over_limit")
	})
	t.Run("an upgraded connection carries both ways", func(t *testing.T) {
		upgrade(t, ups[0], s.Address(t, "https"))
	})
}

// upgrade speaks a WebSocket handshake and then raw bytes, which the upstream
// sends back.
func upgrade(t *testing.T, up *harness.Upstream, address string) {
	t.Helper()
	up.Handle(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
		_, _ = io.Copy(conn, conn)
	})
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Second}, "tcp", address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGVzdA==\r\nSec-WebSocket-Version: 13\r\n\r\n")
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%d", response.StatusCode)
	}
	fmt.Fprint(conn, "hello")
	echo := make([]byte, 5)
	if _, err := io.ReadFull(reader, echo); err != nil || string(echo) != "hello" {
		t.Errorf("%q, %v", echo, err)
	}
}
