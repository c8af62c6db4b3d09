package e2e_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	tracev1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"

	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
)

// collector takes spans over OTLP and notes which service sent them for which
// trace.
type collector struct {
	tracev1.UnimplementedTraceServiceServer
	mu    sync.Mutex
	spans map[string][]string // trace id → service names
}

func (c *collector) Export(_ context.Context, r *tracev1.ExportTraceServiceRequest) (*tracev1.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range r.GetResourceSpans() {
		service := ""
		for _, a := range rs.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				service = a.GetValue().GetStringValue()
			}
		}
		for _, scope := range rs.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				id := hex.EncodeToString(span.GetTraceId())
				c.spans[id] = append(c.spans[id], service)
			}
		}
	}
	return &tracev1.ExportTraceServiceResponse{}, nil
}

// TestTrace: one W3C trace leads through Envoy, the order service and the user
// service that it asks, and the access log names it.
func TestTrace(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{spans: map[string][]string{}}
	server := grpc.NewServer()
	tracev1.RegisterTraceServiceServer(server, c)
	go func() { _ = server.Serve(l) }()
	defer server.Stop()

	file := copyDemo(t)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, fmt.Sprintf("\ntracing: {otlp: %q, sampling: 100%%}\n", l.Addr())...)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+l.Addr().String())
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
	run, _ := startRun(t, file, "--demo")
	header := withToken(run.Ready.Demo.JWT)
	header["traceparent"] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	user := traffic.Request{Method: http.MethodPost, URL: run.Ready.Listeners["http"] + "/api/users", Header: withToken(run.Ready.Demo.JWT), Body: `{"name":"Ada","email":"ada@example.com"}`}.Do(t, nil)
	order := traffic.Request{
		Method: http.MethodPost, URL: run.Ready.Listeners["http"] + "/api/orders", Header: header,
		Body: fmt.Sprintf(`{"user_id":%q,"item":"lamp","amount_cents":1999}`, field(t, user.Body, "id")),
	}.Do(t, nil)
	if order.Status != http.StatusCreated {
		t.Fatalf("create an order: %d %s", order.Status, order.Body)
	}
	harness.Eventually(t, 15*time.Second, "one trace through Envoy, order and user", func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		services := slices.Clone(c.spans["4bf92f3577b34da6a3ce929d0e0e4736"])
		slices.Sort(services)
		services = slices.Compact(services)
		if !slices.Contains(services, "order") || !slices.Contains(services, "user") || len(services) < 3 {
			return fmt.Errorf("services with spans: %v", services)
		}
		return nil
	})
	harness.Eventually(t, 5*time.Second, "the trace in the access log", func() error {
		if !strings.Contains(run.Log(), `"trace":"4bf92f3577b34da6a3ce929d0e0e4736"`) {
			return fmt.Errorf("not there")
		}
		return nil
	})
}
