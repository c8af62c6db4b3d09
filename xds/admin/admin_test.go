package admin_test

import (
	"log/slog"
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
		"itself, gRPC":   {"PUT", "/v1/registry/order-grpc/1", "Bearer secret", good, 204, ""},
		"another":        {"PUT", "/v1/registry/user/1", "Bearer secret", good, 401, "missing_credential"},
		"another ends":   {"DELETE", "/v1/registry/user/1", "Bearer secret", "", 401, "missing_credential"},
		"no token":       {"PUT", "/v1/registry/order/1", "", good, 401, "missing_credential"},
		"wrong token":    {"DELETE", "/v1/registry/order/1", "Bearer secretX", "", 401, "missing_credential"},
		"not a bearer":   {"PUT", "/v1/registry/order/1", "secret", good, 401, "missing_credential"},
		"unknown field":  {"PUT", "/v1/registry/order/1", "Bearer secret", `{"host":"x"}`, 400, "host"},
		"two values":     {"PUT", "/v1/registry/order/1", "Bearer secret", good + good, 400, "more than one"},
		"bad address":    {"PUT", "/v1/registry/order/1", "Bearer secret", `{"address":"x"}`, 400, "IP address"},
		"body too large": {"PUT", "/v1/registry/order/1", "Bearer secret", `{"zone":"` + strings.Repeat("z", 5000) + `"}`, 413, "payload_too_large"},
		"no body":        {"PUT", "/v1/registry/order/1", "Bearer secret", "", 400, "bad_request"},
		"not an object":  {"PUT", "/v1/registry/order/1", "Bearer secret", "[]", 400, "bad_request"},
		"deep":           {"PUT", "/v1/registry/order/1", "Bearer secret", strings.Repeat("[", 4000), 400, "bad_request"},
		"overflow":       {"PUT", "/v1/registry/order/1", "Bearer secret", `{"address":"10.0.0.1:80","weight":-1}`, 400, "weight"},
		"climbing name":  {"PUT", "/v1/registry/order/%2e%2e%2fx", "Bearer secret", good, 400, "names are letters"},
		"empty token":    {"PUT", "/v1/registry/order/1", "Bearer ", good, 401, "missing_credential"},
		"other method":   {"POST", "/v1/registry/order/1", "Bearer secret", good, 404, "not_found"},
		"events":         {"GET", "/v1/events?node=edge-1", "", "", 200, `{"events":[]}`},
		"elsewhere":      {"GET", "/v1/nothing", "", "", 404, "not_found"},
	} {
		t.Run(name, func(t *testing.T) {
			h := admin.New(admin.Config{Ledger: ledger.New(time.Now), Registry: discovery.NewRegistry(time.Now), Secret: "secret", Log: slog.New(slog.DiscardHandler), Now: time.Now})
			r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
			c.token = strings.ReplaceAll(c.token, "secret", discovery.ServiceToken("secret", "order"))
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
	edge := book.Open("edge-1", "")
	edge.Reached(release.TypeCluster, "0123456789abcdef")
	edge.Refused(release.TypeCluster, "ring hash", []ledger.Refusal{{Resource: "x", Pos: "gateway.yaml:3:5"}})
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
	want := "NODE    TYPE     REVISION  STATE    SINCE\nedge-1  cluster  01234567  REFUSED  5s\n  gateway.yaml:3:5: cluster \"x\": ring hash\n"
	if out.String() != want || !s.Refused() {
		t.Fatalf("got\n%swant\n%s", out.String(), want)
	}
}

// TestNoTokenNoChange: a control plane without a token takes no registration,
// not even with an empty one.
func TestNoTokenNoChange(t *testing.T) {
	registry := discovery.NewRegistry(time.Now)
	h := admin.New(admin.Config{Ledger: ledger.New(time.Now), Registry: registry, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	for _, token := range []string{"", "Bearer ", "Bearer x"} {
		r := httptest.NewRequest(http.MethodPut, "/v1/registry/order/1", strings.NewReader(`{"address":"10.0.0.1:80"}`))
		r.Header.Set("Authorization", token)
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != http.StatusUnauthorized || len(registry.Snapshot()) != 0 {
			t.Fatalf("%q: %d", token, w.Code)
		}
	}
}

func TestListIsSortedAndStatusIsJSON(t *testing.T) {
	registry := discovery.NewRegistry(time.Now)
	for _, id := range []string{"b", "a", "c"} {
		for service, address := range map[string]string{"user": "10.0.0.1:80", "order": "10.0.0.2:80"} {
			if err := registry.Put(service, id, discovery.Registration{Address: address, State: "draining"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	at := time.Unix(1_800_000_000, 0)
	book := ledger.New(func() time.Time { return at })
	book.Open("edge-1", "").Reached(release.TypeListener, "v1")
	h := admin.New(admin.Config{Ledger: book, Registry: registry, Now: func() time.Time { return at }})
	get := func(path string) string {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return strings.TrimSpace(w.Body.String())
	}
	row := func(service, id string) string {
		address := map[string]string{"user": "10.0.0.1:80", "order": "10.0.0.2:80"}[service]
		return `{"service":"` + service + `","instance":"` + id + `","address":"` + address + `","weight":1,"state":"draining"}`
	}
	want := `{"instances":[` + strings.Join([]string{row("order", "a"), row("order", "b"), row("order", "c"), row("user", "a"), row("user", "b"), row("user", "c")}, ",") + `]}`
	if got := get("/v1/registry"); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	since := at.Format(time.RFC3339)
	want = `{"time":"` + at.UTC().Format(time.RFC3339) + `","nodes":[{"node":"edge-1","type":"listener","revision":"v1","state":"SYNCED","since":"` + since + `"}]}`
	if got := get("/v1/status"); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if _, err := admin.DecodeStatus([]byte("<html>")); err == nil {
		t.Error("took what is no status")
	}
}

// TestResend sends a node again what it refused; who may ask is judged before.
func TestResend(t *testing.T) {
	for name, c := range map[string]struct {
		node   string
		status int
	}{
		"good":       {"edge-1", 200},
		"not there":  {"edge-2", 404},
		"not a node": {"", 404},
	} {
		t.Run(name, func(t *testing.T) {
			h := admin.New(admin.Config{Ledger: ledger.New(time.Now), Registry: discovery.NewRegistry(time.Now), Secret: "secret", Now: time.Now, Resend: func(node string) int {
				if node == "edge-1" {
					return 1
				}
				return 0
			}})
			r := httptest.NewRequest(http.MethodPost, "/v1/resend?node="+c.node, http.NoBody)
			w := httptest.NewRecorder()
			if h.ServeHTTP(w, r); w.Code != c.status {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
		})
	}
}
