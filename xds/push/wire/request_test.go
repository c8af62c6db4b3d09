package wire_test

import (
	"fmt"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"tollgate/xds/push/wire"
)

// FuzzRequest: what is read of a request is what the library reads, and what is
// no request to it is none here.
func FuzzRequest(f *testing.F) {
	for name, r := range map[string]*discoveryv3.DeltaDiscoveryRequest{
		"empty":   {},
		"resumes": {Node: &corev3.Node{Id: "n"}, TypeUrl: "t", ResourceNamesSubscribe: []string{"a", "b"}, InitialResourceVersions: map[string]string{"a": "1", "b": "", "": "3"}},
		"answers": {TypeUrl: "t", ResponseNonce: "7", ErrorDetail: &status.Status{Code: 13, Message: "no"}, ResourceNamesUnsubscribe: []string{"a"}},
	} {
		data, err := proto.Marshal(r)
		if err != nil {
			f.Fatalf("%s: %v", name, err)
		}
		f.Add(data)
	}
	f.Add([]byte{0x2a, 0x08, 0x0a, 0x01, 'a', 0x0a, 0x01, 'b', 0x12, 0x00}) // a key twice
	f.Add([]byte{0x2a, 0x05, 0x0a, 0x01, 0xff, 0x12, 0x00})                 // no UTF-8
	f.Add([]byte{0x2a, 0x04, 0x18, 0x01, 0x12, 0x00})                       // a field that is not known
	f.Add([]byte{0x28, 0x01})                                               // another kind of field
	f.Add([]byte{0x2a, 0x7f, 0x0a})
	f.Fuzz(func(t *testing.T, data []byte) {
		var got, want discoveryv3.DeltaDiscoveryRequest
		theirs := proto.Unmarshal(data, &want)
		ours := (wire.Codec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer(data)}, &got)
		if (ours == nil) != (theirs == nil) {
			t.Fatalf("ours %v, the library's %v", ours, theirs)
		}
		if theirs == nil && !proto.Equal(&got, &want) {
			t.Fatalf("got %v, want %v", &got, &want)
		}
	})
}

// BenchmarkRequest is the first message of a client that has 10,000 of a type.
func BenchmarkRequest(b *testing.B) {
	r := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: "t", InitialResourceVersions: map[string]string{}}
	for i := range 10_000 {
		r.InitialResourceVersions[fmt.Sprintf("cluster-%06d.default.svc", i)] = fmt.Sprintf("%032x", i)
	}
	data, err := proto.Marshal(r)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.Run("ours", func(b *testing.B) {
		for b.Loop() {
			var got discoveryv3.DeltaDiscoveryRequest
			if err := (wire.Codec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer(data)}, &got); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("library", func(b *testing.B) {
		for b.Loop() {
			var got discoveryv3.DeltaDiscoveryRequest
			if err := proto.Unmarshal(data, &got); err != nil {
				b.Fatal(err)
			}
		}
	})
}
