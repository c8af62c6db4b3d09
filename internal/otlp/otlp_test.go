package otlp_test

import (
	"context"
	"net"
	"testing"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"tollgate/internal/otlp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// span does what instrumentation does, and returns what goes to the next hop.
func span(ctx context.Context, tracing *otlp.Tracing) string {
	in, out := propagation.MapCarrier{"traceparent": parent}, propagation.MapCarrier{}
	ctx, s := tracing.Provider.Tracer("test").Start(tracing.Propagator.Extract(ctx, in), "work", trace.WithSpanKind(trace.SpanKindServer))
	defer s.End()
	tracing.Propagator.Inject(ctx, out)
	return out["traceparent"]
}

// Without a collector the caller's trace context passes through unchanged.
func TestPassThrough(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
	tracing, err := otlp.New(t.Context(), "order", "o1")
	if err != nil {
		t.Fatal(err)
	}
	if got := span(t.Context(), tracing); got != parent {
		t.Errorf("next hop gets %q", got)
	}
	if err := tracing.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

type sink struct {
	collector.UnimplementedTraceServiceServer
	got chan *collector.ExportTraceServiceRequest
}

func (s *sink) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.got <- r
	return &collector.ExportTraceServiceResponse{}, nil
}

// With one, a span of ours is in the caller's trace and is sent at the latest
// at shutdown.
func TestExport(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{got: make(chan *collector.ExportTraceServiceRequest, 1)}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, s)
	go func() { _ = server.Serve(l) }()
	defer server.Stop()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+l.Addr().String())
	tracing, err := otlp.New(t.Context(), "order", "o1")
	if err != nil {
		t.Fatal(err)
	}
	next := span(t.Context(), tracing)
	if next[:36] != parent[:36] || next == parent {
		t.Errorf("next hop gets %q: want the same trace, our span", next)
	}
	if err := tracing.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	resource := (<-s.got).GetResourceSpans()[0]
	if name := resource.GetScopeSpans()[0].GetSpans()[0].GetName(); name != "work" {
		t.Errorf("span %q", name)
	}
	attributes := map[string]string{}
	for _, kv := range resource.GetResource().GetAttributes() {
		attributes[kv.GetKey()] = kv.GetValue().GetStringValue()
	}
	if attributes["service.name"] != "order" || attributes["service.instance.id"] != "o1" {
		t.Errorf("attributes %v", attributes)
	}
}

// A collector that is not there delays neither start nor work, and the end no
// longer than it is given.
func TestNoCollector(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	start := time.Now()
	tracing, err := otlp.New(t.Context(), "order", "o1")
	if err != nil {
		t.Fatal(err)
	}
	_ = span(t.Context(), tracing)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_ = tracing.Shutdown(ctx)
	if d := time.Since(start); d > time.Second {
		t.Errorf("took %v", d)
	}
}
