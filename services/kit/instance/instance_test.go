package instance_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"tollgate/services/kit/httpx"
	"tollgate/services/kit/instance"
	"tollgate/services/kit/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func config(t *testing.T, signer *testkit.Signer) instance.Config {
	t.Helper()
	return instance.Config{
		Service: "test", Instance: "i1", HTTP: testkit.Listen(t), GRPC: testkit.Listen(t), Audiences: []string{"orders"},
		JWKS: testkit.JWKSFile(t, signer), Log: testkit.Quiet(), Metrics: prometheus.NewRegistry(), Register: func(grpc.ServiceRegistrar) {},
	}
}

func client(t *testing.T, http2 bool) *http.Client {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetUnencryptedHTTP2(http2)
	transport := &http.Transport{Protocols: protocols}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func get(client *http.Client, url, token string) (int, string, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("x-auth-token", token)
	req.Header.Set("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// A request of three seconds that begins before the end is finished, over both
// protocols; meanwhile /healthz says no, then nobody listens.
func TestLongRequestsSurviveTheEnd(t *testing.T) {
	for name, http2 := range map[string]bool{"http1": false, "http2": true} {
		t.Run(name, func(t *testing.T) {
			signer := testkit.NewSigner(t, "k1")
			cfg := config(t, signer)
			i, err := instance.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			entered := make(chan struct{})
			i.Router.Handle("GET /api/slow", func(w http.ResponseWriter, r *http.Request) error {
				close(entered)
				time.Sleep(3 * time.Second)
				return httpx.Reply(w, r, http.StatusOK, "done", "")
			})
			base := "http://" + cfg.HTTP.Addr().String()
			stop := testkit.Start(t, i)
			answered := make(chan error, 1)
			status, body := 0, ""
			c := client(t, http2)
			token := signer.Token(t, "acme")
			go func() {
				var err error
				status, body, err = get(c, base+"/api/slow", token)
				answered <- err
			}()
			<-entered
			stopped := make(chan struct{})
			go func() { stop(); close(stopped) }()
			testkit.Until(t, "not healthy", func() bool { s, _, _ := get(client(t, http2), base+"/healthz", ""); return s == 503 })
			if err := <-answered; err != nil || status != 200 || !strings.Contains(body, "done") {
				t.Errorf("%d %s %v", status, body, err)
			}
			<-stopped
			if _, _, err := get(client(t, http2), base+"/healthz", ""); err == nil {
				t.Error("still listening")
			}
		})
	}
}

// The caller's trace is that of the handler.
func TestTraceReachesHandlers(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	signer := testkit.NewSigner(t, "k1")
	cfg := config(t, signer)
	i, err := instance.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	i.Router.Handle("GET /api/trace", func(w http.ResponseWriter, r *http.Request) error {
		return httpx.JSON(w, http.StatusOK, trace.SpanContextFromContext(r.Context()).TraceID().String())
	})
	testkit.Start(t, i)
	_, body, err := get(client(t, false), "http://"+cfg.HTTP.Addr().String()+"/api/trace", signer.Token(t, "acme"))
	var id string
	if err != nil || json.Unmarshal([]byte(body), &id) != nil || id != "4bf92f3577b34da6a3ce929d0e0e4736" {
		t.Errorf("trace %q %v", body, err)
	}
}

// An address of all interfaces is not one to register.
func TestAdvertise(t *testing.T) {
	everywhere, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = everywhere.Close() })
	registry := testkit.NewRegistry(t)
	cfg := config(t, testkit.NewSigner(t, "k1"))
	cfg.HTTP, cfg.Registry = everywhere, []string{registry.URL}
	if _, err := instance.New(cfg); err == nil || !strings.Contains(err.Error(), "advertise") {
		t.Errorf("got %v", err)
	}
	cfg.Advertise, cfg.Metrics = "order-1.internal", nil
	i, err := instance.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	testkit.Start(t, i)
	testkit.Until(t, "registered", func() bool { return len(registry.Up("test")) == 1 })
	if _, port, _ := net.SplitHostPort(everywhere.Addr().String()); registry.Up("test")[0] != "order-1.internal:"+port {
		t.Errorf("registered %v", registry.Up("test"))
	}
}

// A door that breaks takes the other with it, and says why.
func TestBrokenDoor(t *testing.T) {
	cfg := config(t, testkit.NewSigner(t, "k1"))
	i, err := instance.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_ = cfg.GRPC.Close()
	done := make(chan error, 1)
	go func() { done <- i.Run(t.Context()) }()
	select {
	case err := <-done:
		if err == nil {
			t.Error("no error")
		}
	case <-time.After(5 * time.Second):
		t.Fatal("lives on with one door")
	}
}
