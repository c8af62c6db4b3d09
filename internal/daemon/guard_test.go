package daemon_test

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"tollgate/internal/daemon"
)

// TestAdminIsForThoseWhoMayAsk: without the token, for a foreign host and from a
// foreign page nothing is read, and each attempt is in the log.
func TestAdminIsForThoseWhoMayAsk(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	said := func(text string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })
	}
	var log strings.Builder
	a := daemon.NewAdmin(daemon.AdminConfig{
		Listener: l, Token: "secret", Hosts: []string{"Gateway.internal"}, Metrics: daemon.NewRegistry(), Log: slog.New(slog.NewTextHandler(&log, nil)),
		Routes:    map[string]http.Handler{"/v1/": said("inside")},
		Open:      map[string]http.Handler{"GET /open": said("open")},
		Own:       map[string]http.Handler{"PUT /v1/own": said("own")},
		Readiness: func() ([]string, error) { return nil, nil },
	})
	done := make(chan error, 1)
	go func() { done <- a.Run(t.Context()) }()
	for _, c := range []struct {
		name, method, path, host, origin, token string
		status                                  int
	}{
		{"no token", "GET", "/v1/status", "", "", "", 401},
		{"wrong token", "GET", "/v1/status", "", "", "Bearer secreT", 401},
		{"empty token", "GET", "/v1/status", "", "", "Bearer ", 401},
		{"no bearer", "GET", "/v1/status", "", "", "secret", 401},
		{"the token", "GET", "/v1/status", "", "", "Bearer secret", 200},
		{"a name of mine", "GET", "/v1/status", "gateway.INTERNAL:9", "", "Bearer secret", 200},
		{"localhost", "GET", "/v1/status", "localhost:9900", "", "Bearer secret", 200},
		{"rebound", "GET", "/v1/status", "evil.example", "", "Bearer secret", 421},
		{"rebound, open", "GET", "/readyz", "evil.example", "", "", 421},
		{"rebound metrics", "GET", "/metrics", "evil.example:9900", "", "", 421},
		{"another address", "GET", "/readyz", "10.0.0.1:9900", "", "", 421},
		{"a page", "GET", "/v1/status", "", "https://evil.example", "Bearer secret", 403},
		{"a page, open", "GET", "/open", "", "https://evil.example", "", 403},
		{"a page without a name", "GET", "/open", "", "null", "", 403},
		{"our own page", "GET", "/open", "localhost:9900", "http://localhost:9900", "", 200},
		{"open", "GET", "/open", "", "", "", 200},
		{"ready", "GET", "/readyz", "", "", "", 200},
		{"a profile", "GET", "/debug/pprof/heap", "", "", "Bearer secret", 200},
		{"profiles", "GET", "/debug/pprof/", "", "", "Bearer secret", 200},
		{"a profile, no token", "GET", "/debug/pprof/heap", "", "", "", 401},
		{"profiles, no token", "GET", "/debug/pprof/", "", "", "", 401},
		{"a long profile, wrong token", "GET", "/debug/pprof/profile?seconds=30", "", "", "Bearer secreT", 401},
		{"a trace, rebound", "GET", "/debug/pprof/trace", "evil.example", "", "Bearer secret", 421},
		{"the command line, a page", "GET", "/debug/pprof/cmdline", "", "https://evil.example", "Bearer secret", 403},
		{"its own credentials", "PUT", "/v1/own", "xds-1:9900", "", "", 200},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, "http://"+l.Addr().String()+c.path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = c.host
		for name, value := range map[string]string{"Origin": c.origin, "Authorization": c.token} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if response.StatusCode != c.status || c.status != 200 && strings.Contains(string(body), "inside") {
			t.Errorf("%s: %d %s, want %d", c.name, response.StatusCode, body, c.status)
		}
	}
	_ = l.Close()
	<-done
	for _, want := range []string{"status=401", "status=421", "status=403", "host=evil.example", "origin=https://evil.example"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not tell of %s:\n%s", want, log.String())
		}
	}
	if strings.Contains(log.String(), "secret") {
		t.Error("the log tells the token")
	}
}
