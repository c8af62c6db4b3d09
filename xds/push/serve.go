package push

import (
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"tollgate/xds/push/stream"
)

// DeltaAggregatedResources serves one client until it leaves.
func (s *Server) DeltaAggregatedResources(grpcStream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	st := stream.New(s.site)
	s.join(st)
	defer s.leave(st)
	ctx := grpcStream.Context()
	ended := listen(grpcStream.Recv, func(r *discoveryv3.DeltaDiscoveryRequest) error { return st.Request(ctx, r) }, st.Wake)
	alarm := time.NewTimer(time.Hour)
	defer alarm.Stop()
	for {
		alarm.Reset(st.Alarm(time.Now()))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-ended:
			return err
		case <-st.Wakeup:
		case <-alarm.C:
		}
		planned := time.Now()
		responses := st.Next(planned)
		if len(responses) > 0 {
			s.stirred() // before they leave: who does not read is looked after, too
		}
		for _, response := range responses {
			st.Leaves(response)
			if err := grpcStream.SendMsg(response); err != nil {
				return err
			}
		}
		if len(responses) > 0 {
			st.Handed(planned)
		}
	}
}

// StreamAggregatedResources serves clients that do not speak delta: grpc-go and
// the reference rate-limit server.
func (s *Server) StreamAggregatedResources(grpcStream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	st := stream.New(s.site)
	s.join(st)
	defer s.leave(st)
	w := stream.NewWhole(st)
	ctx := grpcStream.Context()
	ended := listen(grpcStream.Recv, func(r *discoveryv3.DiscoveryRequest) error { return w.Request(ctx, r) }, st.Wake)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-ended:
			return err
		case <-st.Wakeup:
		}
		for _, response := range w.Next(time.Now()) {
			s.stirred()
			if err := grpcStream.Send(response); err != nil {
				return err
			}
		}
	}
}

// listen takes what a client says until it leaves, whatever it is being sent
// meanwhile: one that reads, then sends, in one thread must not wait for itself.
func listen[T any](recv func() (T, error), take func(T) error, wake func()) <-chan error {
	ended := make(chan error, 1)
	go func() {
		for {
			request, err := recv()
			if err != nil {
				ended <- nil // whatever ended it, the client comes back
				return
			}
			if err := take(request); err != nil {
				ended <- err
				return
			}
			wake()
		}
	}()
	return ended
}
