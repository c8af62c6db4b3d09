package admin_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"tollgate/xds/admin"
	"tollgate/xds/discovery"
	"tollgate/xds/ledger"
	"tollgate/xds/release"
)

func TestRegistryEndpoint(t *testing.T) {
	const good = `{"address":"10.0.0.1:80","weight":2,"zone":"z","state":"up","ttl_s":10}`
	for name, c := range map[string]struct {
		method, path, token, body string
		status                    int
		says                      string
	}{
		"put":            {"PUT", "/v1/registry/order/1", "Bearer secret", good, 204, ""},
		"delete":         {"DELETE", "/v1/registry/order/1", "Bearer secret", "", 204, ""},
		"no token":       {"PUT", "/v1/registry/order/1", "", good, 401, "missing_credential"},
		"wrong token":    {"DELETE", "/v1/registry/order/1", "Bearer secreT", "", 401, "missing_credential"},
		"not a bearer":   {"PUT", "/v1/registry/order/1", "secret", good, 401, "missing_credential"},
		"unknown field":  {"PUT", "/v1/registry/order/1", "Bearer secret", `{"host":"x"}`, 400, "host"},
		"two values":     {"PUT", "/v1/registry/order/1", "Bearer secret", good + good, 400, "more than one"},
		"bad address":    {"PUT", "/v1/registry/order/1", "Bearer secret", `{"address":"x"}`, 400, "IP address"},
		"body too large": {"PUT", "/v1/registry/order/1", "Bearer secret", `{"zone":"` + strings.Repeat("z", 5000) + `"}`, 400, "too large"},
		"elsewhere":      {"GET", "/v1/nothing", "", "", 404, "not_found"},
	} {
		t.Run(name, func(t *testing.T) {
			h := admin.New(admin.Config{Ledger: ledger.New(time.Now), Registry: discovery.NewRegistry(time.Now), Token: "secret", Now: time.Now})
			r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
			if c.token != "" {
				r.Header.Set("Authorization", c.token)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != c.status || !strings.Contains(w.Body.String(), c.says) {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			if c.status >= 400 && !strings.HasPrefix(w.Body.String(), `{"error":{"code":`) {
				t.Fatalf("not the envelope: %s", w.Body)
			}
		})
	}
}

func TestStatusTable(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	book := ledger.New(func() time.Time { return at })
	book.Connected("edge-1")
	book.Sent("edge-1", release.TypeCluster, "0123456789abcdef", []string{"x"})
	book.Refused("edge-1", release.TypeCluster, []string{"x"}, "ring hash")
	h := admin.New(admin.Config{Ledger: book, Registry: discovery.NewRegistry(time.Now), Now: func() time.Time { return at.Add(5 * time.Second) }})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/status", nil))
	s, err := admin.DecodeStatus(w.Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := s.Render(&out); err != nil {
		t.Fatal(err)
	}
	want := "NODE    TYPE     CONFIG    STATE    SINCE\nedge-1  cluster  01234567  REFUSED  5s\n  cluster \"x\": ring hash\n"
	if out.String() != want || !s.Refused() {
		t.Fatalf("got\n%swant\n%s", out.String(), want)
	}
}
