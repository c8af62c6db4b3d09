package push_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/stats"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"tollgate/internal/cost"
	"tollgate/xds/push"
	"tollgate/xds/release"
)

// encodes is a message that counts how often it is encoded.
type encodes struct {
	proto.Message
	n *atomic.Int64
}

// ProtoReflect is what an encoder asks for, once.
func (e encodes) ProtoReflect() protoreflect.Message {
	e.n.Add(1)
	return e.Message.ProtoReflect()
}

// counted returns objects whose encodes count in n.
func counted(objects []release.Object, n *atomic.Int64) []release.Object {
	for i := range objects {
		objects[i].Message = encodes{objects[i].Message, n}
	}
	return objects
}

// sent counts what a server sends.
type sent struct{ messages, bytes atomic.Int64 }

// TagRPC changes nothing.
func (*sent) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// TagConn changes nothing.
func (*sent) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn counts nothing.
func (*sent) HandleConn(context.Context, stats.ConnStats) {}

// HandleRPC counts payloads.
func (s *sent) HandleRPC(_ context.Context, event stats.RPCStats) {
	if out, ok := event.(*stats.OutPayload); ok {
		s.messages.Add(1)
		s.bytes.Add(int64(out.WireLength))
	}
}

// TestCost gates what one changed cluster of a thousand costs on its way to a
// hundred proxies: objects encoded, messages and bytes sent, and what the
// process allocates, the scripted proxies in it included.
func TestCost(t *testing.T) {
	const proxies, clusters = 100, 1_000
	var base []release.Object
	for i := range clusters {
		base = append(base, cluster(fmt.Sprintf("c%05d", i), 1)...)
	}
	var n atomic.Int64
	first := made(t, base)
	out := &sent{}
	s := start(t, push.Config{}, out)
	s.Publish(first)
	held := map[string]string{}
	for _, name := range first.Names(release.Edge, release.TypeCluster) {
		held[name] = first.Get(release.Edge, release.TypeCluster, name).Version
	}
	var all []*client
	for i := range proxies {
		c := s.connect(t, fmt.Sprintf("p%d", i))
		c.ack(c.next(release.TypeRuntime))
		c.resume(release.TypeCluster, held)
		all = append(all, c)
	}
	const runs = 10
	var edits [][]release.Object // made before, because how a test makes them is its own cost
	for version := range runs + 2 {
		edits = append(edits, counted(append(cluster("c00000", version+2), base[2:]...), &n))
	}
	change := func() {
		s.Publish(made(t, edits[0]))
		edits = edits[1:]
		for _, c := range all {
			c.ack(c.next(release.TypeCluster))
			c.ack(c.next(release.TypeEndpoint))
		}
	}
	change()
	n.Store(0)
	out.messages.Store(0)
	out.bytes.Store(0)
	cost.AtMost(t, "one cluster of 1,000 to 100 proxies", cost.Of(runs, change), cost.Cost{Allocs: 21_000, Bytes: 2_100_000})
	for what, count := range map[string]struct{ got, most int64 }{
		"objects encoded": {n.Load(), 2 * clusters},
		"messages sent":   {out.messages.Load(), 2 * proxies},
		"bytes sent":      {out.bytes.Load(), 45_000},
	} {
		got := count.got / (runs + 1)
		t.Logf("%s: %d a change; at most %d", what, got, count.most)
		if got > count.most {
			t.Errorf("%s: %d a change, more than %d", what, got, count.most)
		}
	}
}
