package wire

import (
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto" // registers the codec for all other messages
	"google.golang.org/grpc/mem"
)

// Codec is gRPC's for protobuf, but that a Response goes out as it is, and that the
// versions in a request of delta cost little.
type Codec struct{}

// Name is that of the codec that it stands in for.
func (Codec) Name() string { return proto.Name }

// Marshal implements encoding.CodecV2.
func (Codec) Marshal(v any) (mem.BufferSlice, error) {
	if r, ok := v.(*Response); ok {
		return r.buffers(), nil
	}
	return encoding.GetCodecV2(proto.Name).Marshal(v)
}

// Unmarshal implements encoding.CodecV2.
func (Codec) Unmarshal(data mem.BufferSlice, v any) error {
	if r, ok := v.(*discoveryv3.DeltaDiscoveryRequest); ok {
		return decode(data.Materialize(), r)
	}
	return encoding.GetCodecV2(proto.Name).Unmarshal(data, v)
}
