package agent

import (
	"context"
	"errors"
	"log/slog"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tollgate/xds/push"
	"tollgate/xds/release"
)

// fallback serves what is kept until a control plane answers.
type fallback struct {
	node   string
	server *push.Server
	since  time.Time // of what it serves
	ended  chan struct{}
}

func newFallback(node string, resources []*discoveryv3.Resource, since time.Time, log *slog.Logger) (*fallback, error) {
	objects := make([]release.Object, len(resources))
	for i, one := range resources {
		message, err := one.GetResource().UnmarshalNew()
		if err != nil {
			return nil, err
		}
		objects[i] = release.Object{Audience: release.Edge, Type: one.GetResource().GetTypeUrl(), Name: one.GetName(), Message: message}
	}
	all, err := release.New(objects)
	if err != nil {
		return nil, err
	}
	server, err := push.New(push.Config{Log: log, Metrics: prometheus.NewRegistry()})
	if err != nil {
		return nil, err
	}
	server.Publish(all)
	return &fallback{node: node, server: server, since: since, ended: make(chan struct{})}, nil
}

func (f *fallback) run(ctx context.Context) { _ = f.server.Run(ctx) } // it ends with ctx alone

func (f *fallback) end() { close(f.ended) }

// serve serves a stream until the proxy leaves or a control plane answers.
func (f *fallback) serve(down discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	ctx, cancel := context.WithCancelCause(down.Context())
	defer cancel(nil)
	served := make(chan struct{})
	defer close(served)
	go func() {
		select {
		case <-served:
		case <-f.ended:
			cancel(errAnswered)
		}
	}()
	err := f.server.DeltaAggregatedResources(&until{down, ctx})
	if errors.Is(context.Cause(ctx), errAnswered) {
		return errAnswered
	}
	return err
}

var errAnswered = status.Error(codes.Unavailable, "a control plane answers again")

// until is a stream that ends earlier.
type until struct {
	discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	ctx context.Context // the stream's own, cut
}

func (u *until) Context() context.Context { return u.ctx }

// replay is a stream whose first request was read already.
type replay struct {
	discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	first *discoveryv3.DeltaDiscoveryRequest
}

func (r *replay) Recv() (*discoveryv3.DeltaDiscoveryRequest, error) {
	if first := r.first; first != nil {
		r.first = nil
		return first, nil
	}
	return r.AggregatedDiscoveryService_DeltaAggregatedResourcesServer.Recv()
}
