package push_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"tollgate/internal/clientrate"
	"tollgate/xds/push"
	"tollgate/xds/release"
)

// ending is how a delta and a state-of-the-world stream end after one message.
func (s *server) ending(t *testing.T, node *corev3.Node, url string) (delta, whole error) {
	t.Helper()
	ads := discoveryv3.NewAggregatedDiscoveryServiceClient(s.conn)
	d, err := ads.DeltaAggregatedResources(t.Context())
	if err == nil {
		err = d.Send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: url})
	}
	if err != nil {
		t.Fatal(err)
	}
	w, err := ads.StreamAggregatedResources(t.Context())
	if err == nil {
		err = w.Send(&discoveryv3.DiscoveryRequest{Node: node, TypeUrl: url})
	}
	if err != nil {
		t.Fatal(err)
	}
	_, delta = d.Recv()
	_, whole = w.Recv()
	return delta, whole
}

func TestTurnedAway(t *testing.T) {
	admit := func(_ context.Context, node *corev3.Node) (push.Client, error) {
		if node.GetId() == "thief" {
			return push.Client{}, errors.New("its certificate is of orders")
		}
		return push.Client{Identity: "edge/one", Allows: func(url string) bool { return url == release.TypeCluster }}, nil
	}
	s := start(t, push.Config{Admit: admit})
	s.Publish(made(t, cluster("a", 1), of(listener("http"), policy("p"))))
	for name, c := range map[string]struct {
		node *corev3.Node
		url  string
		code codes.Code
		says string
	}{
		"another's id":         {nodeOf("thief"), release.TypeCluster, codes.PermissionDenied, "certificate is of orders"},
		"another role's type":  {nodeOf("one"), release.TypePolicy, codes.PermissionDenied, "edge/one may not ask for " + release.TypePolicy},
		"no node":              {nil, release.TypeCluster, codes.InvalidArgument, "node"},
		"a node without an id": {&corev3.Node{Cluster: "edge"}, release.TypeCluster, codes.InvalidArgument, "node"},
	} {
		delta, whole := s.ending(t, c.node, c.url)
		for _, err := range []error{delta, whole} {
			if status.Code(err) != c.code || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for _, line := range s.book.Lines() {
		t.Errorf("kept: %+v", line)
	}
}

// TestTurnedAwayFillsNoLog: who is turned away, or asks for what is not his, as
// often as he likes is in the log a few times, by his address.
func TestTurnedAwayFillsNoLog(t *testing.T) {
	admit := func(_ context.Context, node *corev3.Node) (push.Client, error) {
		if node.GetId() == "thief" {
			return push.Client{}, errors.New("its certificate is of orders")
		}
		return push.Client{Identity: "edge/one", Allows: func(string) bool { return false }}, nil
	}
	for id, word := range map[string]string{"thief": "client turned away", "one": "client asked for what is not its to have"} {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			var out lines
			s := start(t, push.Config{Admit: admit, Callers: clientrate.NewLog(slog.New(slog.NewTextHandler(&out, nil)), "address").Logger})
			began := time.Now()
			const streams = 100
			for range streams {
				s.ending(t, nodeOf(id), release.TypeCluster)
			}
			seconds := int(time.Since(began)/time.Second) + 2 // it may have begun in the middle of one
			text := out.String()
			if n := strings.Count(text, word); n < clientrate.PerClient || n > min(seconds*clientrate.PerClient, 2*streams-1) {
				t.Errorf("%d lines in %d seconds", n, seconds)
			}
			if !strings.Contains(text, "address=") {
				t.Errorf("no address: %.300s", text)
			}
		})
	}
}

// lines is a log that many write.
type lines struct {
	mu  sync.Mutex
	out strings.Builder
}

func (l *lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.Write(line)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.String()
}

// TestIdentityShows: the account says who a node really is.
func TestIdentityShows(t *testing.T) {
	s := start(t, push.Config{Admit: func(context.Context, *corev3.Node) (push.Client, error) {
		return push.Client{Identity: "spiffe://tollgate/edge/one"}, nil
	}})
	s.Publish(made(t, cluster("a", 1)))
	c := meet(t, s, "one")
	c.subscribe(release.TypeCluster)
	c.take(release.TypeCluster, "a")
	for _, line := range s.book.Lines() {
		if line.Identity != "spiffe://tollgate/edge/one" {
			t.Errorf("%+v", line)
		}
	}
}

// TestNamedSecretsOnly: a key goes to who serves a listener with it.
func TestNamedSecretsOnly(t *testing.T) {
	s := start(t, push.Config{Admit: func(context.Context, *corev3.Node) (push.Client, error) {
		return push.Client{NamedSecrets: true}, nil
	}})
	tls, err := anypb.New(&tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: "http/cert"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	https := edge(release.TypeListener, "http", &listenerv3.Listener{Name: "http/other", FilterChains: []*listenerv3.FilterChain{
		{TransportSocket: &corev3.TransportSocket{Name: "tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: tls}}},
	}})
	https.Refs = []release.Ref{{Type: release.TypeSecret, Name: "http/cert"}}
	s.Publish(made(t, of(https, secret("http/cert"), secret("http/other"))))
	c := meet(t, s, "one")
	c.subscribe(release.TypeSecret, "http/cert", "http/other")
	c.gone(release.TypeSecret, "http/cert", "http/other")
	c.subscribe(release.TypeListener, "http")
	c.take(release.TypeListener, "http")
	c.take(release.TypeSecret, "http/cert")
	c.silence()
}
