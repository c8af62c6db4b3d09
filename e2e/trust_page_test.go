package e2e_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/harness"
)

// TestBoxPage: a page in the operator's browser, by whatever name it makes lead
// to us and whatever kind of request a browser lets it send, reads and moves
// nothing; not even one that learnt a token.
func TestBoxPage(t *testing.T) {
	b := startBox(t)
	order := b.registryToken(t, "order")
	registration := `{"address":"` + b.up.Address + `","ttl_s":300}`
	if r := (attempt{Do: "PUT", Target: b.registry("order", "1"), Body: registration, Header: order}).must(t); r.Status != http.StatusNoContent {
		t.Fatalf("%+v", r)
	}
	_, port, err := net.SplitHostPort(b.admin)
	if err != nil {
		t.Fatal(err)
	}
	// By any name: instances of other machines have names for us that we have not.
	if r := (attempt{Do: "PUT", Target: b.registry("order", "1"), Host: "xds-1.internal:" + port, Body: registration, Header: order}).must(t); r.Status != http.StatusNoContent {
		t.Errorf("an instance that knows us by another name: %+v", r)
	}
	const foreign = "https://evil.example"
	rebound := "evil.example:" + port // the page's own host, which now leads here
	form := map[string]string{"Content-Type": "text/plain"}
	with := func(headers ...map[string]string) map[string]string {
		all := map[string]string{}
		for _, h := range headers {
			for name, value := range h {
				all[name] = value
			}
		}
		return all
	}
	origin := func(o string) map[string]string { return map[string]string{"Origin": o} }
	token := b.bearer("admin.token")
	status, resend, instance := "/v1/status", "/v1/resend?node=edge", "/v1/registry/order/1"
	seen := 0
	for _, c := range []struct {
		method, path, host string
		header             map[string]string
		body               string
		status             int
	}{
		// A name that the page's DNS makes lead here.
		{"GET", "/readyz", rebound, nil, "", 421},
		{"GET", "/metrics", rebound, origin("http://" + rebound), "", 421},
		{"GET", "/metrics/envoy", rebound, nil, "", 421},
		{"GET", status, rebound, nil, "", 421},
		{"GET", status, rebound, token, "", 421},
		{"GET", status, "evil.example", token, "", 421},
		{"GET", status, "localhost.evil.example:" + port, token, "", 421},
		{"GET", status, "127.0.0.1.evil.example:" + port, token, "", 421},
		{"GET", status, "10.0.0.1:" + port, token, "", 421},
		{"GET", status, "0.0.0.0:" + port, token, "", 421},
		{"POST", resend, rebound, with(token, origin("http://"+rebound)), "", 421},
		{"GET", "/debug/pprof/heap", rebound, token, "", 421},
		// Our own name, from another page.
		{"GET", "/readyz", "", origin(foreign), "", 403},
		{"GET", status, "", origin(foreign), "", 403},
		{"GET", status, "", with(token, origin(foreign)), "", 403},
		{"GET", status, "", with(token, origin("null")), "", 403},
		{"GET", status, "", with(token, origin("http://127.0.0.1:1")), "", 403},
		{"GET", status, "", with(token, origin("http://"+b.admin+".evil.example")), "", 403},
		{"POST", resend, "", with(token, origin(foreign)), "", 403},
		// What a form sends, without asking first.
		{"POST", resend, "", with(form, origin(foreign)), "x=y", 403},
		{"POST", resend, "", form, "x=y", 401},
		{"POST", resend, rebound, form, "x=y", 421},
		// The registry, which judges no names.
		{"PUT", instance, rebound, form, registration, 401},
		{"PUT", instance, rebound, with(form, origin("http://"+rebound)), registration, 401},
		{"DELETE", instance, rebound, nil, "", 401},
		{"PUT", instance, "", with(order, origin(foreign)), registration, 403},
		{"DELETE", instance, "", with(order, origin(foreign)), "", 403},
		{"DELETE", instance, rebound, with(order, origin("null")), "", 403},
		{"POST", instance, "", with(form, order), registration, 401},
		{"POST", instance + "?_method=DELETE", "", with(form, origin(foreign)), registration, 403},
		// May it ask?
		{"OPTIONS", instance, "", with(origin(foreign), map[string]string{"Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "authorization"}), "", 403},
		{"OPTIONS", status, "", with(origin(foreign), map[string]string{"Access-Control-Request-Method": "GET", "Access-Control-Request-Private-Network": "true"}), "", 403},
	} {
		request, err := http.NewRequestWithContext(t.Context(), c.method, "http://"+b.admin+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		request.Host = c.host
		for name, value := range c.header {
			request.Header.Set(name, value)
		}
		response, err := (&http.Client{Timeout: 5 * time.Second, Transport: elsewhere(nil)}).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != c.status {
			t.Errorf("%s %s as %q, %v: %d %s, want %d", c.method, c.path, c.host, c.header, response.StatusCode, body, c.status)
		}
		b.tells(t, c.path, string(body))
		for name := range response.Header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s %s answers with %s", c.method, c.path, name)
			}
		}
		seen++
		harness.Eventually(t, 5*time.Second, "each attempt is in the log", func() error {
			if n := strings.Count(b.Log(), `"admin request refused"`) + strings.Count(b.Log(), `"registration refused`); n < seen {
				return io.ErrNoProgress
			}
			return nil
		})
	}
	listed := attempt{Do: "GET", Target: "http://" + b.admin + "/v1/registry", Header: token}.must(t)
	if !strings.Contains(listed.Got, `"instance":"1"`) {
		t.Errorf("the instance is gone: %s", listed.Got)
	}
	b.unmoved(t)
}
