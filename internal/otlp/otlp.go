// Package otlp sets up tracing for one process. Invariant: W3C trace context
// passes through whether or not spans are exported; they are exported only
// when OTEL_EXPORTER_OTLP_ENDPOINT (or …_TRACES_ENDPOINT) is set, and a
// collector that is gone never delays a request or a start.
package otlp

import (
	"context"
	"errors"
	"fmt"
	"os"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Tracing is what instrumentation is given. It is never put into globals.
type Tracing struct {
	Provider   trace.TracerProvider
	Propagator propagation.TextMapPropagator
	shutdown   func(context.Context) error
}

// New reads the standard OTEL_EXPORTER_OTLP_* environment.
func New(ctx context.Context, service, instance string) (*Tracing, error) {
	t := &Tracing{
		Provider:   noop.NewTracerProvider(),
		Propagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
		shutdown:   func(context.Context) error { return nil },
	}
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
		return t, nil
	}
	exporter, err := otlptracegrpc.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_ENDPOINT: %w: write the URL of an OTLP gRPC collector, or unset it", err)
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", service),
			attribute.String("service.instance.id", instance),
		)),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.AlwaysSample())),
	)
	t.Provider = provider
	t.shutdown = func(ctx context.Context) error {
		// The provider gives up waiting when ctx ends but not trying; the
		// exporter's own end cuts that off.
		return errors.Join(provider.Shutdown(ctx), exporter.Shutdown(ctx))
	}
	return t, nil
}

// Shutdown sends what is still held, for as long as ctx allows.
func (t *Tracing) Shutdown(ctx context.Context) error { return t.shutdown(ctx) }
