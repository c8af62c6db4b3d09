package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"tollgate/xds/ledger"
	"tollgate/xds/push"
	"tollgate/xds/release"
)

// engine is a control plane that serves clusters and their endpoints.
type engine interface {
	prepare(n int) error // makes the n-th edit, which does not count
	edit() error         // puts it in force
}

// be serves on a free port, which it says, and does what it is told.
func be(kind string, s shape, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	options := []grpc.ServerOption{grpc.MaxConcurrentStreams(1 << 20), grpc.MaxRecvMsgSize(1 << 30)}
	if kind == "ours" {
		options = push.ServerOptions()
	}
	server := grpc.NewServer(options...)
	var e engine
	var err error
	switch kind {
	case "ours":
		e, err = newOurs(ctx, server, s.clusters)
	case "linear":
		e = newLinear(ctx, server, s.clusters)
	case "snapshot":
		e, err = newSnapshot(ctx, server, s.clusters)
	default:
		err = fmt.Errorf("no such kind of server: %q", kind)
	}
	if err != nil {
		return err
	}
	var binder net.ListenConfig
	listener, err := binder.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	fmt.Fprintln(out, listener.Addr())
	edits := 0
	for lines := bufio.NewScanner(in); lines.Scan(); {
		switch lines.Text() {
		case "prepare":
			edits++
			err = e.prepare(edits)
		case "edit":
			err = e.edit()
		}
		if err != nil {
			return err
		}
		until, from, rss := used(lines.Text() == "stat")
		fmt.Fprintln(out, until, from, rss)
	}
	return nil
}

// cpu is that of this process, in ms.
func cpu() float64 {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage) // it cannot fail with these arguments
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e6
}

// used is this process's CPU in ms before and after a collection, which is the
// bench's own, and its resident memory in kB.
func used(collect bool) (until, from, rss float64) {
	until = cpu()
	if !collect {
		return until, until, 0
	}
	debug.FreeOSMemory()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return until, cpu(), 0
	}
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	_, _ = fmt.Sscan(after, &rss) // zero shows in the table
	return until, cpu(), rss
}

func name(i int) string { return fmt.Sprintf("cluster-%06d.default.svc", i) }

func clusterOf(i int) *clusterv3.Cluster {
	ads := &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3, ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}
	return &clusterv3.Cluster{
		Name: name(i), ConnectTimeout: durationpb.New(time.Second), LbPolicy: clusterv3.Cluster_LEAST_REQUEST,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}, EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads},
	}
}

// endpointsOf are three of them; one is on another port in every version.
func endpointsOf(i, version int) *endpointv3.ClusterLoadAssignment {
	var hosts []*endpointv3.LbEndpoint
	for j := range 3 {
		hosts = append(hosts, &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
				Address: fmt.Sprintf("10.%d.%d.%d", i/250%250, i%250, j), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 8080 + uint32(version)*uint32(min(j, 1))},
			}}},
		}}})
	}
	return &endpointv3.ClusterLoadAssignment{ClusterName: name(i), Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: hosts}}}
}

// ours is the push engine, with the release made of the one before.
type ours struct {
	push *push.Server
	last *release.Release
	next release.Object
}

func newOurs(ctx context.Context, server *grpc.Server, clusters int) (*ours, error) {
	s, err := push.New(push.Config{Log: slog.New(slog.DiscardHandler), Ledger: ledger.New(time.Now)})
	if err != nil {
		return nil, err
	}
	s.Register(server)
	go func() { _ = s.Run(ctx) }()
	var objects []release.Object
	for i := range clusters {
		objects = append(objects,
			release.Object{Audience: release.Edge, Type: release.TypeCluster, Name: name(i), Message: clusterOf(i)},
			release.Object{Audience: release.Edge, Type: release.TypeEndpoint, Name: name(i), Message: endpointsOf(i, 0)})
	}
	o := &ours{push: s}
	if o.last, err = release.New(objects); err != nil {
		return nil, err
	}
	s.Publish(o.last)
	return o, nil
}

func (o *ours) prepare(n int) error {
	o.next = release.Object{Audience: release.Edge, Type: release.TypeEndpoint, Name: name(n), Message: endpointsOf(n, n)}
	return nil
}

func (o *ours) edit() (err error) {
	if o.last, err = o.last.With([]release.Object{o.next}); err != nil {
		return err
	}
	o.push.Publish(o.last)
	return nil
}

// linear is go-control-plane's cache of one type each, which encodes a change
// for every stream but sends it alone.
type linear struct {
	endpoints *cache.LinearCache
	next      *endpointv3.ClusterLoadAssignment
}

func newLinear(ctx context.Context, server *grpc.Server, clusters int) *linear {
	all := map[string]types.Resource{}
	endpoints := map[string]types.Resource{}
	for i := range clusters {
		all[name(i)], endpoints[name(i)] = clusterOf(i), endpointsOf(i, 0)
	}
	l := &linear{endpoints: cache.NewLinearCache(release.TypeEndpoint, cache.WithInitialResources(endpoints))}
	caches := map[string]cache.Cache{
		release.TypeCluster: cache.NewLinearCache(release.TypeCluster, cache.WithInitialResources(all)), release.TypeEndpoint: l.endpoints,
	}
	mux := &cache.MuxCache{Classify: func(r *cache.Request) string { return r.GetTypeUrl() }, ClassifyDelta: func(r *cache.DeltaRequest) string { return r.GetTypeUrl() }, Caches: caches}
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, serverv3.NewServer(ctx, mux, nil))
	return l
}

func (l *linear) prepare(n int) error {
	l.next = endpointsOf(n, n)
	return nil
}

func (l *linear) edit() error { return l.endpoints.UpdateResource(l.next.GetClusterName(), l.next) }

// snapshot is go-control-plane's cache of everything under one key.
type snapshot struct {
	ctx                 context.Context
	cache               cache.SnapshotCache
	clusters, endpoints []types.Resource
	next                *cache.Snapshot
}

type one struct{}

func (one) ID(*corev3.Node) string { return "all" }

func newSnapshot(ctx context.Context, server *grpc.Server, clusters int) (*snapshot, error) {
	s := &snapshot{ctx: ctx, cache: cache.NewSnapshotCache(true, one{}, nil)}
	for i := range clusters {
		s.clusters, s.endpoints = append(s.clusters, clusterOf(i)), append(s.endpoints, endpointsOf(i, 0))
	}
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, serverv3.NewServer(ctx, s.cache, nil))
	if err := s.prepare(0); err != nil {
		return nil, err
	}
	return s, s.edit()
}

func (s *snapshot) prepare(n int) (err error) {
	s.endpoints[n] = endpointsOf(n, n)
	s.next, err = cache.NewSnapshot(fmt.Sprint(n), map[string][]types.Resource{release.TypeCluster: s.clusters, release.TypeEndpoint: s.endpoints})
	return err
}

func (s *snapshot) edit() error { return s.cache.SetSnapshot(s.ctx, "all", s.next) }
