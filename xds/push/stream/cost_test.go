package stream_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"tollgate/xds/push"
	"tollgate/xds/release"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plane is a control plane with many clusters.
type plane struct {
	*push.Server
	t       *testing.T
	address string
	metrics *prometheus.Registry
	objects []release.Object
	last    *release.Release
}

func newPlane(t *testing.T, clusters int) *plane {
	t.Helper()
	p := &plane{t: t, metrics: prometheus.NewRegistry()}
	for i := range clusters {
		name := fmt.Sprintf("cluster-%05d.corp.test", i)
		p.objects = append(p.objects,
			release.Object{Audience: release.Edge, Type: release.TypeCluster, Name: name, Message: &clusterv3.Cluster{Name: name}},
			release.Object{Audience: release.Edge, Type: release.TypeEndpoint, Name: name, Message: &endpointv3.ClusterLoadAssignment{ClusterName: name}})
	}
	var err error
	if p.Server, err = push.New(push.Config{Log: slog.New(slog.DiscardHandler), Metrics: p.metrics}); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.address = listener.Addr().String()
	server := grpc.NewServer(push.ServerOptions()...)
	p.Register(server)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.Run(ctx) })
	wg.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() { server.Stop(); cancel(); wg.Wait() })
	p.publish()
	return p
}

func (p *plane) publish() {
	p.t.Helper()
	var err error
	if p.last == nil {
		p.last, err = release.New(p.objects)
	} else {
		p.last, err = p.last.With(p.objects)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.Publish(p.last)
}

// encoded is how many responses were.
func (p *plane) encoded() float64 {
	p.t.Helper()
	families, err := p.metrics.Gather()
	if err != nil {
		p.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "tollgate_xds_encoded_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	p.t.Fatal("no such metric")
	return 0
}

// manner is how a client behaves.
type manner int

const (
	answers manner = iota
	mute           // reads and never answers
	blind          // does not even read
)

// join brings a client with a connection of its own; it counts the resources
// that it was sent.
func (p *plane) join(how manner) *atomic.Int64 {
	p.t.Helper()
	conn, err := grpc.NewClient(p.address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10),
		grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { cancel(); _ = conn.Close() })
	first := []*discoveryv3.DeltaDiscoveryRequest{{Node: &corev3.Node{Id: "one", Cluster: "edge"}, TypeUrl: release.TypeCluster}, {TypeUrl: release.TypeEndpoint}}
	for i := 0; i < len(p.objects) && how == answers; i += 2 {
		first[1].ResourceNamesSubscribe = append(first[1].ResourceNamesSubscribe, p.objects[i].Name)
	}
	for _, r := range first {
		if err := stream.Send(r); err != nil {
			p.t.Fatal(err)
		}
	}
	var got atomic.Int64
	if how == blind {
		return &got
	}
	go func() {
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			if how == answers && stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}) != nil {
				return
			}
			got.Add(int64(len(r.GetResources())))
		}
	}()
	return &got
}

// reach waits until all clients were sent so many resources.
func (p *plane) reach(want int, clients ...*atomic.Int64) {
	p.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for _, got := range clients {
		for got.Load() < int64(want) {
			if time.Now().After(deadline) {
				p.t.Fatalf("%d resources of %d came", got.Load(), want)
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// TestAChangeIsEncodedOnce: however many proxies, one changed resource is one
// response that is encoded, and so is what all get that come with nothing.
func TestAChangeIsEncodedOnce(t *testing.T) {
	const proxies, clusters = 50, 100
	p := newPlane(t, clusters)
	var clients []*atomic.Int64
	for range proxies {
		clients = append(clients, p.join(answers))
	}
	p.reach(2*clusters, clients...)
	before := p.encoded()
	if most := float64(2*clusters + 10); before > most {
		t.Errorf("%d cold clients made %v responses of %d resources, at most %v", proxies, before, 2*clusters, most)
	}
	p.objects[1].Message = &endpointv3.ClusterLoadAssignment{ClusterName: p.objects[1].Name, Endpoints: []*endpointv3.LocalityLbEndpoints{{}}}
	p.publish()
	p.reach(2*clusters+1, clients...)
	if after := p.encoded(); after != before+1 {
		t.Errorf("one change was encoded %v times", after-before)
	}
}

// heap is what is live, once it is quiet.
func heap(t *testing.T) int64 {
	t.Helper()
	var last, now int64
	for deadline := time.Now().Add(20 * time.Second); now == 0 || max(now-last, last-now) > 30_000; {
		if time.Now().After(deadline) {
			t.Fatal("it never is quiet")
		}
		var m runtime.MemStats
		time.Sleep(20 * time.Millisecond)
		runtime.GC()
		runtime.GC() // a pool outlives the first
		runtime.ReadMemStats(&m)
		last, now = now, int64(m.HeapAlloc)
	}
	return now
}

// TestStreamsShareWhatTheyHave: twenty times as many clusters cost a stream
// nothing. What is measured includes the client's side.
func TestStreamsShareWhatTheyHave(t *testing.T) {
	each := map[int]int64{}
	for _, clusters := range []int{100, 2_000} {
		const proxies = 20
		p := newPlane(t, clusters)
		p.reach(2*clusters, p.join(answers))
		before := heap(t)
		for range proxies {
			p.reach(2*clusters, p.join(answers))
		}
		each[clusters] = (heap(t) - before) / proxies
	}
	t.Logf("a stream: %d kB with 100 clusters, %d kB with 2,000", each[100]>>10, each[2_000]>>10)
	if more := each[2_000] - each[100]; more > 100<<10 {
		t.Errorf("%d kB more", more>>10)
	}
}

// TestWhoSaysNothing: a client that never answers, and one that does not even
// read, cost little, and go on costing little while all changes.
func TestWhoSaysNothing(t *testing.T) {
	for name, how := range map[string]manner{"never answers": mute, "never reads": blind} {
		t.Run(name, func(t *testing.T) {
			const clients, clusters = 20, 2_000
			p := newPlane(t, clusters)
			p.reach(2*clusters, p.join(answers))
			before := heap(t)
			for range clients {
				p.join(how)
			}
			time.Sleep(500 * time.Millisecond)
			for n := range 60 {
				for i := range 50 {
					p.objects[2*i].Message = &clusterv3.Cluster{Name: p.objects[2*i].Name, ConnectTimeout: durationpb.New(time.Duration(n+1) * time.Second)}
				}
				p.publish()
				time.Sleep(10 * time.Millisecond)
			}
			time.Sleep(3 * time.Second) // ours with a client's patience
			each := (heap(t) - before) / clients
			t.Logf("%d kB each", each>>10)
			if each > 150<<10 { // a part of it is the client's
				t.Errorf("%d kB each", each>>10)
			}
		})
	}
}
