package wire_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"tollgate/xds/push/wire"
	"tollgate/xds/release"
)

func resource(name, version string, size int) *release.Resource {
	return &release.Resource{Type: release.TypeEndpoint, Name: name, Version: version, Body: &anypb.Any{TypeUrl: release.TypeEndpoint, Value: slices.Repeat([]byte{7}, size)}}
}

// TestOnTheWire: what a client decodes is what was meant.
func TestOnTheWire(t *testing.T) {
	for name, c := range map[string]struct {
		resources []*release.Resource
		removed   []string
	}{
		"nothing":           {},
		"one":               {[]*release.Resource{resource("a", "v", 3)}, nil},
		"no content":        {[]*release.Resource{resource("a", "v", 0)}, nil},
		"only removals":     {nil, []string{"x", "y"}},
		"many of all sizes": {[]*release.Resource{resource("a", "v", 127), resource("bb", "w", 128), resource("c", "", 20_000), resource("", "z", 1<<20)}, []string{"x"}},
	} {
		var frames wire.Frames
		response := frames.Of(release.TypeEndpoint, c.resources, c.removed).With("nonce")
		buffers, err := wire.Codec{}.Marshal(response)
		if err != nil {
			t.Fatal(err)
		}
		var got discoveryv3.DeltaDiscoveryResponse
		if err := (wire.Codec{}).Unmarshal(buffers, &got); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: release.TypeEndpoint, Nonce: "nonce", RemovedResources: c.removed}
		for _, one := range c.resources {
			want.Resources = append(want.Resources, &discoveryv3.Resource{Name: one.Name, Version: one.Version, Resource: one.Body})
			want.SystemVersionInfo = one.Version
		}
		if !proto.Equal(&got, want) {
			t.Errorf("%s: another message", name)
		}
		plain, err := wire.Codec{}.Marshal(want)
		if err != nil || plain.Len() != buffers.Len() {
			t.Errorf("%s: %d bytes, the library's %d (%v)", name, buffers.Len(), plain.Len(), err)
		}
	}
}

// TestEncodedOnce: whoever asks, and however many at a time, equal content is
// one frame; any difference is another.
func TestEncodedOnce(t *testing.T) {
	var frames wire.Frames
	a, b, c := resource("a", "1", 3), resource("b", "1", 3), resource("c", "1", 3)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 20 {
				frames.Of(release.TypeEndpoint, []*release.Resource{a, b}, []string{"x", "y"})
			}
		})
	}
	wg.Wait()
	if n := frames.Encoded(); n != 1 {
		t.Fatalf("encoded %d times", n)
	}
	first := frames.Of(release.TypeEndpoint, []*release.Resource{a, b}, []string{"x", "y"})
	for _, other := range []*wire.Frame{
		frames.Of(release.TypeCluster, []*release.Resource{a, b}, []string{"x", "y"}),
		frames.Of(release.TypeEndpoint, []*release.Resource{a, c}, []string{"x", "y"}),
		frames.Of(release.TypeEndpoint, []*release.Resource{a, b}, []string{"x", "z"}),
		frames.Of(release.TypeEndpoint, []*release.Resource{a, b}, nil),
		frames.Of(release.TypeEndpoint, []*release.Resource{a, c, b}, []string{"x", "y"}),
		frames.Of(release.TypeEndpoint, []*release.Resource{a, b, b}, []string{"x", "y"}),
	} {
		if other == first {
			t.Error("another content in the same frame")
		}
	}
}

// TestFramesAreBounded: what is remembered is not all that was ever sent.
func TestFramesAreBounded(t *testing.T) {
	var frames wire.Frames
	first := []*release.Resource{resource("first", "1", 8<<20)}
	frames.Of(release.TypeEndpoint, first, nil)
	for i := range 3 {
		frames.Of(release.TypeEndpoint, []*release.Resource{resource(fmt.Sprint(i), "1", 8<<20)}, nil)
	}
	before := frames.Encoded()
	frames.Of(release.TypeEndpoint, first, nil)
	if frames.Encoded() != before+1 {
		t.Fatal("32 MB are remembered")
	}
}
