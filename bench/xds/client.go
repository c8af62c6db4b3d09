package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"tollgate/xds/release"
)

// patience ends a bench whose server never gets there.
const patience = 10 * time.Minute

// raw hands messages over as they are on the wire.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// fleet is all clients of one run.
type fleet struct {
	address  string
	clusters int
	first    [2][]byte     // what every client says at first, of clusters and of endpoints
	versions [2]versions   // of one that synced cold
	synced   atomic.Int64  // clients that have everything
	changed  atomic.Int64  // responses since the last expect
	bytes    atomic.Int64  // of them
	reached  chan struct{} // a token for each client that synced or was sent a change
}

type versions map[string]string

// drive does what it is told.
func drive(address string, s shape, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f := &fleet{address: address, clusters: s.clusters, reached: make(chan struct{}, 2*s.clients), versions: [2]versions{{}, {}}}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var err error
		switch lines.Text() {
		case "learn":
			err = f.learn(ctx, s.resume)
		case "sync":
			err = f.sync(ctx, s)
		case "expect":
			f.changed.Store(0)
			f.bytes.Store(0)
		case "wait":
			err = f.wait(s.clients)
		}
		if err != nil {
			return err
		}
		fmt.Fprintln(out, f.bytes.Load())
	}
	return nil
}

// learn makes the first messages: of a client that has nothing, or of one that
// has all, with the versions that another was sent.
func (f *fleet) learn(ctx context.Context, resume bool) error {
	if err := f.messages(); err != nil || !resume {
		return err
	}
	one, stop := context.WithCancel(ctx)
	if err := f.connect(one, 0, true); err != nil {
		stop()
		return err
	}
	err := f.wait(1)
	stop()
	time.Sleep(200 * time.Millisecond)
	f.synced.Store(0)
	if err != nil {
		return err
	}
	return f.messages()
}

func (f *fleet) messages() (err error) {
	node := &corev3.Node{Id: "bench", Cluster: "edge"}
	for i, r := range []*discoveryv3.DeltaDiscoveryRequest{{TypeUrl: release.TypeCluster}, {TypeUrl: release.TypeEndpoint}} {
		r.Node, r.InitialResourceVersions = node, f.versions[i]
		if i == 1 {
			for n := range f.clusters {
				r.ResourceNamesSubscribe = append(r.ResourceNamesSubscribe, name(n))
			}
		}
		if f.first[i], err = proto.Marshal(r); err != nil {
			return err
		}
	}
	return nil
}

// sync connects all, at most 32 of them at a time when they come with nothing.
func (f *fleet) sync(ctx context.Context, s shape) error {
	limit := s.clients
	if !s.resume {
		limit = 32
	}
	for i := range s.clients {
		for int64(i)-f.synced.Load() >= int64(limit) {
			time.Sleep(time.Millisecond)
		}
		if err := f.connect(ctx, i, false); err != nil {
			return err
		}
	}
	if s.resume {
		// Nothing is sent to who has all: an idle second is the end of it.
		time.Sleep(time.Second)
		return nil
	}
	return f.wait(s.clients)
}

func (f *fleet) wait(n int) error {
	late := time.After(patience)
	for range n {
		select {
		case <-f.reached:
		case <-late:
			return errors.New("the clients were not sent all")
		}
	}
	return nil
}

// connect brings one client in.
func (f *fleet) connect(ctx context.Context, _ int, learns bool) error {
	conn, err := grpc.NewClient("passthrough:///"+f.address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(1<<20), grpc.WithInitialConnWindowSize(1<<20), grpc.WithReadBufferSize(8<<10), grpc.WithWriteBufferSize(8<<10),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName)
	if err != nil {
		return err
	}
	if err := errors.Join(stream.SendMsg(&f.first[0]), stream.SendMsg(&f.first[1])); err != nil {
		return err
	}
	go f.follow(stream, learns)
	return nil
}

// follow answers whatever comes.
func (f *fleet) follow(stream grpc.ClientStream, learns bool) {
	missing := 2 * f.clusters
	if len(f.versions[0]) > 0 && !learns {
		missing = 0
	}
	for {
		var message []byte
		if stream.RecvMsg(&message) != nil {
			return
		}
		r := read(message)
		if learns {
			i := slices.Index([]string{release.TypeCluster, release.TypeEndpoint}, r.url)
			maps.Copy(f.versions[i], r.resources())
		}
		answer := protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), r.url)
		answer = protowire.AppendBytes(protowire.AppendTag(answer, 6, protowire.BytesType), r.nonce)
		if stream.SendMsg(&answer) != nil {
			return
		}
		f.count(r, len(message), &missing)
	}
}

func (f *fleet) count(r response, size int, missing *int) {
	if r.n == 0 {
		return
	}
	if *missing > 0 {
		if *missing -= r.n; *missing <= 0 {
			f.synced.Add(1)
			f.reached <- struct{}{}
		}
		return
	}
	f.bytes.Add(int64(size))
	f.changed.Add(1)
	f.reached <- struct{}{}
}

// response is what a client must know of one.
type response struct {
	url     string
	nonce   []byte
	n       int // resources
	message []byte
}

func read(message []byte) response {
	r := response{message: message}
	fields(message, func(number protowire.Number, value []byte) {
		switch number {
		case 2:
			r.n++
		case 4:
			r.url = string(value)
		case 5:
			r.nonce = value
		}
	})
	return r
}

func (r response) resources() versions {
	v := versions{}
	fields(r.message, func(number protowire.Number, value []byte) {
		if number != 2 {
			return
		}
		var one [4]string
		fields(value, func(number protowire.Number, value []byte) {
			if number == 1 || number == 3 {
				one[number] = string(value)
			}
		})
		v[one[3]] = one[1]
	})
	return v
}

func fields(message []byte, take func(number protowire.Number, value []byte)) {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		length := protowire.ConsumeFieldValue(number, kind, message[max(n, 0):])
		if n < 0 || length < 0 {
			return
		}
		value, _ := protowire.ConsumeBytes(message[n:])
		take(number, value)
		message = message[n+length:]
	}
}
