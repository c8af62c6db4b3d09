package httpx_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tollgate/api/contract"
	"tollgate/internal/envelope"
	"tollgate/internal/otlp"
	"tollgate/services/kit/fault"
	"tollgate/services/kit/httpx"
	"tollgate/services/kit/red"
	"tollgate/services/kit/testkit"
)

// password is an authenticator with one good token.
type password string

func (p password) Authenticate(ctx context.Context, token string) (context.Context, error) {
	if token != string(p) {
		return nil, fault.Unauthenticated("invalid_token", "The identity is not valid here", errors.New("cause-for-the-log"))
	}
	return ctx, nil
}

type item struct {
	Name   string `json:"name"`
	Amount int64  `json:"amount"`
}

func router(t *testing.T, registry *prometheus.Registry) *httpx.Router {
	t.Helper()
	metrics, err := red.New(registry, "test")
	if err != nil {
		t.Fatal(err)
	}
	tracing, err := otlp.New(t.Context(), "test", "i1")
	if err != nil {
		t.Fatal(err)
	}
	rt := httpx.NewRouter(httpx.Config{Service: "test", Instance: "i1", Auth: password("good"), Metrics: metrics, Tracing: tracing, Log: testkit.Quiet()})
	rt.Handle("GET /api/items/{id}", func(w http.ResponseWriter, r *http.Request) error {
		return httpx.Reply(w, r, http.StatusOK, r.PathValue("id"), "")
	})
	rt.Handle("POST /api/items", func(w http.ResponseWriter, r *http.Request) error {
		v, err := httpx.ReadJSON[item](r)
		if err != nil {
			return err
		}
		return httpx.Reply(w, r, http.StatusCreated, v, "")
	})
	rt.Handle("GET /api/panic", func(http.ResponseWriter, *http.Request) error { panic("secret-of-ours") })
	rt.Handle("GET /api/broken", func(http.ResponseWriter, *http.Request) error { return errors.New("secret-of-ours") })
	rt.Handle("GET /api/late", func(w http.ResponseWriter, r *http.Request) error {
		_ = httpx.Reply(w, r, http.StatusOK, "begun", "")
		return errors.New("too late")
	})
	return rt
}

func TestRouter(t *testing.T) {
	rt := router(t, prometheus.NewRegistry())
	for _, tt := range []struct {
		name, method, path, token, body string
		status                          int
		reason                          string
	}{
		{name: "health is open", method: "GET", path: "/healthz", status: 200},
		{name: "found", method: "GET", path: "/api/items/7", token: "good", status: 200},
		{name: "head", method: "HEAD", path: "/api/items/7", token: "good", status: 200},
		{name: "no token", method: "GET", path: "/api/items/7", status: 401, reason: "missing_credential"},
		{name: "bad token", method: "GET", path: "/api/items/7", token: "bad", status: 401, reason: "invalid_token"},
		{name: "unknown path without a token", method: "GET", path: "/api/nothing", status: 401, reason: "missing_credential"},
		{name: "unknown path", method: "GET", path: "/api/nothing", token: "good", status: 404, reason: "not_found"},
		{name: "unclean path is no redirect", method: "GET", path: "/api//items/7", token: "good", status: 404, reason: "not_found"},
		{name: "dots are no redirect", method: "GET", path: "/api/x/../items/7", token: "good", status: 404, reason: "not_found"},
		{name: "unclean path to an open one", method: "GET", path: "//healthz", status: 401, reason: "missing_credential"},
		{name: "method", method: "DELETE", path: "/api/items/7", token: "good", status: 405, reason: "method_not_allowed"},
		{name: "created", method: "POST", path: "/api/items", token: "good", body: `{"name":"x","amount":1}`, status: 201},
		{name: "large", method: "POST", path: "/api/items", token: "good", body: `{"name":"` + strings.Repeat("x", 65<<10) + `"}`, status: 413, reason: "payload_too_large"},
		{name: "panic", method: "GET", path: "/api/panic", token: "good", status: 500, reason: "internal"},
		{name: "error", method: "GET", path: "/api/broken", token: "good", status: 500, reason: "internal"},
		{name: "error after the answer", method: "GET", path: "/api/late", token: "good", status: 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := httptest.NewRequestWithContext(t.Context(), tt.method, tt.path, strings.NewReader(tt.body))
			if tt.token != "" {
				req.Header.Set("x-auth-token", tt.token)
			}
			req.Header.Set("x-request-id", "req-1")
			rec := httptest.NewRecorder()
			rt.ServeHTTP(rec, req)
			if rec.Code != tt.status {
				t.Fatalf("status %d, want %d: %s", rec.Code, tt.status, rec.Body)
			}
			if h := rec.Header(); h.Get("x-served-by") != "i1" || h.Get("x-request-id") != "req-1" {
				t.Errorf("headers %v", h)
			}
			if s := rec.Body.String(); strings.Contains(s, "secret-of-ours") || strings.Contains(s, "cause-for-the-log") {
				t.Errorf("the client sees our cause: %s", s)
			}
			if tt.reason == "" {
				return
			}
			var body envelope.Body
			if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil {
				t.Fatalf("%v: %s", err, rec.Body)
			}
			if body.Error.Reason != tt.reason || body.Error.Code != envelope.Code(tt.status) || *body.Meta.RequestID != "req-1" {
				t.Errorf("envelope %+v", body)
			}
			if tt.status == 405 && rec.Header().Get("Allow") != "GET, HEAD" {
				t.Errorf("Allow %q", rec.Header().Get("Allow"))
			}
			if tt.status == 401 && rec.Header().Get("WWW-Authenticate") == "" {
				t.Error("no WWW-Authenticate")
			}
		})
	}
}

// TestRequestsAreBounded: a client that waits for ever does not keep a handler.
func TestRequestsAreBounded(t *testing.T) {
	rt := router(t, prometheus.NewRegistry())
	left := time.Duration(-1)
	rt.Handle("GET /api/deadline", func(_ http.ResponseWriter, r *http.Request) error {
		if at, ok := r.Context().Deadline(); ok {
			left = time.Until(at)
		}
		return nil
	})
	r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/api/deadline", nil)
	r.Header.Set(contract.HeaderToken, "good")
	rt.ServeHTTP(httptest.NewRecorder(), r)
	if left <= 0 || left > 5*time.Second {
		t.Errorf("the request may last %v", left)
	}
}

func TestTwoTokens(t *testing.T) {
	req := httptest.NewRequestWithContext(t.Context(), "GET", "/api/items/7", nil)
	req.Header["X-Auth-Token"] = []string{"good", "bad"}
	rec := httptest.NewRecorder()
	router(t, prometheus.NewRegistry()).ServeHTTP(rec, req)
	if rec.Code != 401 || !strings.Contains(rec.Body.String(), "ambiguous_credentials") {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}

func TestRequestIDIsMadeFit(t *testing.T) {
	rt := router(t, prometheus.NewRegistry())
	for _, sent := range []string{"", "a b", "x\x01", strings.Repeat("a", 129), `{"a":1}`} {
		req := httptest.NewRequestWithContext(t.Context(), "GET", "/healthz", nil)
		req.Header.Set("x-request-id", sent)
		rec := httptest.NewRecorder()
		rt.ServeHTTP(rec, req)
		if id := rec.Header().Get("x-request-id"); id == sent || len(id) != 36 {
			t.Errorf("sent %q, got %q", sent, id)
		}
	}
}

// Ten thousand ids and methods add no series.
func TestLabelsAreBounded(t *testing.T) {
	registry := prometheus.NewRegistry()
	rt := router(t, registry)
	for i := range 1000 {
		for _, path := range []string{"/api/items/", "/api/x"} {
			req := httptest.NewRequestWithContext(t.Context(), "GET", path+strings.Repeat("y", 1+i%50), nil)
			req.Header.Set("x-auth-token", "good")
			rt.ServeHTTP(httptest.NewRecorder(), req)
		}
		rt.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "M"+strings.Repeat("X", i%20), "/", nil))
	}
	n, err := testutil.GatherAndCount(registry, "service_requests_total")
	if err != nil || n != 3 {
		t.Errorf("%d series (%v), want 3: found, not found, unknown method", n, err)
	}
}

func TestDrain(t *testing.T) {
	rt := router(t, prometheus.NewRegistry())
	rt.Drain()
	for path, want := range map[string]int{"/healthz": 503, "/api/items/7": 200} {
		req := httptest.NewRequestWithContext(t.Context(), "GET", path, nil)
		req.Header.Set("x-auth-token", "good")
		rec := httptest.NewRecorder()
		rt.ServeHTTP(rec, req)
		if rec.Code != want || rec.Header().Get("Connection") != "close" {
			t.Errorf("%s: %d %v", path, rec.Code, rec.Header())
		}
	}
}

func TestDecodeJSON(t *testing.T) {
	for _, tt := range []struct{ name, body, want string }{
		{"good", `{"name":"x","amount":1}`, ""},
		{"missing keys are zero", `{}`, ""},
		{"white space", " \n{\"name\":\"x\"}\n ", ""},
		{"empty", ``, "it is empty"},
		{"null", `null`, "does not begin with {"},
		{"array", `[{"name":"x"}]`, "does not begin with {"},
		{"cut", `{"name":"x"`, "ends early"},
		{"two", `{"name":"x"}{"name":"y"}`, "something follows"},
		{"trailing comma", `{"name":"x",}`, "invalid character"},
		{"comment", `{"name":"x"} // y`, "something follows"},
		{"unknown", `{"nam":"x"}`, `key "nam" is unknown; known: name, amount`},
		{"case", `{"Name":"x"}`, `key "Name" is unknown`},
		{"twice", `{"name":"x","name":"y"}`, `key "name" is there twice`},
		{"twice, escaped", `{"name":"x","na\u006de":"y"}`, `key "name" is there twice`},
		{"not UTF-8", "{\"name\":\"\xff\"}", "not UTF-8"},
		{"string for a number", `{"amount":"1"}`, "amount: must be a whole number, not a JSON string"},
		{"fraction", `{"amount":1.5}`, "amount: must be a whole number"},
		{"out of range", `{"amount":9223372036854775808}`, "amount: must be a whole number"},
		{"object for a string", `{"name":{"a":1}}`, "name: must be a string, not a JSON object"},
		{"deep", `{"name":` + strings.Repeat("[", 10000), "nested deeper"},
		{"NaN", `{"amount":NaN}`, "invalid character"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := httpx.DecodeJSON[item]([]byte(tt.body))
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || fault.Of(err).Status != 400 || !strings.Contains(fault.Of(err).Message, tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// What is taken means the same to every reader: encoded again it decodes to
// the same value, and a lenient reader sees that value too.
func FuzzDecodeJSON(f *testing.F) {
	for _, s := range []string{
		`{"name":"x","amount":1}`, `{}`, ``, `{"name":"x","name":"y"}`, `{"Name":"x"}`, `{"amount":1e3}`,
		`{"name":"\ud800"}`, `{"name":[[[[`, "{\"name\":\"\xff\"}", `{"name":null}`, `{"name":"x"} {}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		v, err := httpx.DecodeJSON[item](body)
		if err != nil {
			if got := fault.Of(err).Status; got != http.StatusBadRequest {
				t.Fatalf("status %d", got)
			}
			return
		}
		var lenient item
		if err := json.Unmarshal(body, &lenient); err != nil || lenient != v {
			t.Fatalf("%q: strict %+v, lenient %+v (%v)", body, v, lenient, err)
		}
		again, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if w, err := httpx.DecodeJSON[item](again); err != nil || w != v {
			t.Fatalf("%q: %+v (%v), want %+v", again, w, err, v)
		}
	})
}

func TestPageQuery(t *testing.T) {
	for query, want := range map[string]bool{"": true, "page_size=5&page_token=x": true, "page_size=x": false, "page_size=%zz": false} {
		_, _, err := httpx.PageQuery(httptest.NewRequestWithContext(t.Context(), "GET", "/?"+query, nil))
		if (err == nil) != want {
			t.Errorf("%q: %v", query, err)
		}
	}
}

// A request that runs when the server is told to stop is finished.
func TestServerFinishesWhatRuns(t *testing.T) {
	rt := router(t, prometheus.NewRegistry())
	entered, release := make(chan struct{}), make(chan struct{})
	rt.Handle("GET /api/slow", func(w http.ResponseWriter, r *http.Request) error {
		close(entered)
		<-release
		return httpx.Reply(w, r, http.StatusOK, "done", "")
	})
	l := testkit.Listen(t)
	stop := testkit.Start(t, httpx.NewServer(l, rt, 4e9, testkit.Quiet()))
	type answer struct {
		status int
		err    error
	}
	answered := make(chan answer, 1)
	go func() {
		req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), "GET", "http://"+l.Addr().String()+"/api/slow", nil)
		if err != nil {
			answered <- answer{err: err}
			return
		}
		req.Header.Set("x-auth-token", "good")
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			answered <- answer{err: err}
			return
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		answered <- answer{resp.StatusCode, err}
	}()
	<-entered
	go func() {
		testkit.Until(t, "listener closed", func() bool {
			conn, err := (&net.Dialer{}).DialContext(context.WithoutCancel(t.Context()), "tcp", l.Addr().String())
			if err == nil {
				_ = conn.Close()
			}
			return err != nil
		})
		close(release)
	}()
	stop()
	if got := <-answered; got.status != 200 || got.err != nil {
		t.Errorf("answer %+v", got)
	}
}
