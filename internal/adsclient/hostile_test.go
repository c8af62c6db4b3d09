package adsclient_test

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"

	"tollgate/internal/adsclient"
)

const (
	typeIdentity = "type.googleapis.com/tollgate.authz.v1.Identity"
	typePolicy   = "type.googleapis.com/tollgate.authz.v1.Policy"
	typeCluster  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
)

// script is a control plane that says what a test wants.
type script struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	streams  atomic.Int32
	requests chan *discoveryv3.DeltaDiscoveryRequest
	say      chan *discoveryv3.DeltaDiscoveryResponse // nil ends the stream
}

func (s *script) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	s.streams.Add(1)
	go func() {
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			s.requests <- r
		}
	}()
	for {
		select {
		case r := <-s.say:
			if r == nil {
				return errors.New("the test ends this stream")
			}
			if err := stream.Send(r); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return nil
		}
	}
}

func play(t *testing.T) (*script, string) {
	t.Helper()
	s := &script{requests: make(chan *discoveryv3.DeltaDiscoveryRequest, 1000), say: make(chan *discoveryv3.DeltaDiscoveryResponse)}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, s)
	ended := make(chan struct{})
	go func() { _ = g.Serve(lis); close(ended) }()
	t.Cleanup(func() { g.Stop(); <-ended })
	return s, lis.Addr().String()
}

func (s *script) request(t *testing.T) *discoveryv3.DeltaDiscoveryRequest {
	t.Helper()
	select {
	case r := <-s.requests:
		return r
	case <-time.After(10 * time.Second):
		t.Fatal("no request came")
		return nil
	}
}

// follow runs a client until the test ends.
func follow(t *testing.T, apply func(adsclient.Update) error, servers ...string) {
	t.Helper()
	c, err := adsclient.New(adsclient.Config{
		Servers: servers, NodeID: "n", NodeCluster: "tollgate-extauthz",
		Types: []string{typeIdentity, typePolicy}, Apply: apply,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func response(nonce string, resources ...*discoveryv3.Resource) *discoveryv3.DeltaDiscoveryResponse {
	return &discoveryv3.DeltaDiscoveryResponse{TypeUrl: typePolicy, Nonce: nonce, Resources: resources}
}

func resource(name, version string) *discoveryv3.Resource {
	return &discoveryv3.Resource{Name: name, Version: version, Resource: &anypb.Any{TypeUrl: typePolicy}}
}

func TestHandshake(t *testing.T) {
	s, address := play(t)
	follow(t, func(adsclient.Update) error { return nil }, address)
	first, second := s.request(t), s.request(t)
	if first.GetTypeUrl() != typeIdentity || first.GetNode().GetId() != "n" || first.GetNode().GetCluster() != "tollgate-extauthz" {
		t.Errorf("first: %v", first)
	}
	if second.GetTypeUrl() != typePolicy || second.GetNode() != nil || len(second.GetResourceNamesSubscribe()) != 0 {
		t.Errorf("second: %v", second)
	}
}

// TestAnswers: only what Apply took is named after a reconnect.
func TestAnswers(t *testing.T) {
	s, address := play(t)
	follow(t, func(u adsclient.Update) error {
		if u.Upserts != nil && u.Upserts[0].Name == "bad" {
			return errors.New("rule 3: \xff" + strings.Repeat("x", 100_000))
		}
		return nil
	}, address)
	s.request(t)
	s.request(t)
	s.say <- response("1", resource("a", "v1"), resource("b", "v1"))
	if r := s.request(t); r.GetResponseNonce() != "1" || r.GetErrorDetail() != nil {
		t.Fatalf("not acked: %v", r)
	}
	s.say <- response("2", resource("bad", "v1"))
	if r := s.request(t); r.GetResponseNonce() != "2" || !strings.HasPrefix(r.GetErrorDetail().GetMessage(), "rule 3: \uFFFDxxx") || len(r.GetErrorDetail().GetMessage()) > 10_000 {
		t.Fatalf("not refused, or in too many words: %.100v", r)
	}
	s.say <- &discoveryv3.DeltaDiscoveryResponse{TypeUrl: typePolicy, Nonce: "3", RemovedResources: []string{"b", "never seen"}}
	s.request(t)
	s.say <- nil
	s.request(t)
	if r := s.request(t); !maps.Equal(r.GetInitialResourceVersions(), map[string]string{"a": "v1"}) {
		t.Fatalf("after a reconnect: %v", r)
	}
	if n := s.streams.Load(); n != 2 {
		t.Fatalf("%d streams", n)
	}
}

func TestHostileResponses(t *testing.T) {
	for name, hostile := range map[string]*discoveryv3.DeltaDiscoveryResponse{
		"type not asked for": {TypeUrl: typeCluster, Nonce: "x", Resources: []*discoveryv3.Resource{{Name: "c"}}},
		"no type":            {Nonce: "x"},
		"no body":            response("x", &discoveryv3.Resource{Name: "p", Version: "1"}),
		"another body":       response("x", &discoveryv3.Resource{Name: "p", Resource: &anypb.Any{TypeUrl: typeCluster}}),
		"no name":            response("x", resource("", "1")),
		"nothing in it":      response("x", &discoveryv3.Resource{}),
	} {
		t.Run(name, func(t *testing.T) {
			s, address := play(t)
			follow(t, func(u adsclient.Update) error { t.Errorf("applied %+v", u); return nil }, address)
			s.request(t)
			s.request(t)
			s.say <- hostile
			if r := s.request(t); r.GetResponseNonce() != "x" || r.GetErrorDetail().GetMessage() == "" || r.GetTypeUrl() != hostile.GetTypeUrl() {
				t.Fatalf("not refused: %v", r)
			}
			if n := s.streams.Load(); n != 1 {
				t.Fatalf("the stream broke: %d", n)
			}
		})
	}
}

// TestSecondServer: a lost control plane gives way to the next, which is told
// what the client has; one that only accepts connections does not hold it up.
func TestSecondServer(t *testing.T) {
	one, first := play(t)
	two, second := play(t)
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mute.Close() }()
	follow(t, func(adsclient.Update) error { return nil }, first, mute.Addr().String(), "127.0.0.1:1", second)
	one.request(t)
	one.request(t)
	one.say <- response("1", resource("a", "v1"))
	one.request(t)
	start := time.Now()
	one.say <- nil
	two.request(t)
	if r := two.request(t); !slices.Equal(slices.Collect(maps.Keys(r.GetInitialResourceVersions())), []string{"a"}) {
		t.Fatalf("to the second: %v", r)
	}
	if took := time.Since(start); took > 8*time.Second {
		t.Fatalf("took %s", took)
	}
}
