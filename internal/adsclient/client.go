// Package adsclient is a small delta ADS client: how our own servers take
// their config from the control plane. Invariant: updates reach Apply in order,
// from one goroutine; what Apply refused is refused on the wire with its reason,
// and what was accepted is named on reconnect, so that only differences come.
package adsclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/anypb"
)

const (
	shortest = 100 * time.Millisecond
	longest  = 5 * time.Second
	// A connection that a stopped control plane holds open is noticed within
	// these two.
	pingEvery, pingWait = 5 * time.Second, 3 * time.Second
	maxMessage          = 64 << 20
	// A server that does not even finish the handshake gives way to the next.
	connectWait = 3 * time.Second
	// A refusal travels whole to the ledger's log, but no dump does.
	maxWords = 8 << 10
)

// Resource is one thing the control plane sent.
type Resource struct {
	Name, Version string
	Body          *anypb.Any
}

// Update is one response: what is new or changed, and what is gone.
type Update struct {
	Type    string
	Upserts []Resource
	Removed []string
}

// Config is what a client is made of.
type Config struct {
	Servers     []string // host:port, tried in turn
	NodeID      string
	NodeCluster string
	Types       []string           // subscribed as a whole, in this order
	Apply       func(Update) error // nil acks; an error nacks with its text
	Log         *slog.Logger
	DialOptions []grpc.DialOption // nil: plain text
}

// Client follows one control plane at a time.
type Client struct {
	cfg      Config
	versions map[string]map[string]string // type → name → accepted version
}

// New returns a client that has not connected yet.
func New(cfg Config) (*Client, error) {
	switch {
	case len(cfg.Servers) == 0:
		return nil, errors.New("no control plane: write --xds-servers host:port,…")
	case cfg.NodeID == "" || cfg.Apply == nil || len(cfg.Types) == 0:
		return nil, errors.New("a client needs a node id, types and Apply")
	}
	if cfg.DialOptions == nil {
		cfg.DialOptions = []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Client{cfg: cfg, versions: map[string]map[string]string{}}
	for _, t := range cfg.Types {
		c.versions[t] = map[string]string{}
	}
	return c, nil
}

// Run follows the control planes until ctx ends: a lost one is tried again,
// the next one first, after 0.1 to 5 s.
func (c *Client) Run(ctx context.Context) error {
	pause := shortest
	for i := 0; ; i++ {
		server := c.cfg.Servers[i%len(c.cfg.Servers)]
		heard, err := c.follow(ctx, server)
		if ctx.Err() != nil {
			return nil
		}
		if heard {
			pause = shortest
		}
		wait := pause/2 + rand.N(pause/2+1)
		c.cfg.Log.Warn("control plane lost, trying again", "err", err, "dur", wait)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		pause = min(2*pause, longest)
	}
}

// follow runs one stream; heard says whether the server answered anything.
func (c *Client) follow(ctx context.Context, server string) (heard bool, err error) {
	options := append([]grpc.DialOption{
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pingWait, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectWait}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
	}, c.cfg.DialOptions...)
	conn, err := grpc.NewClient("passthrough:///"+server, options...)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return false, err
	}
	node := &corev3.Node{Id: c.cfg.NodeID, Cluster: c.cfg.NodeCluster}
	for _, t := range c.cfg.Types {
		if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: t, InitialResourceVersions: c.versions[t]}); err != nil {
			return false, err
		}
		node = nil // only the first message carries it
	}
	for {
		response, err := stream.Recv()
		if err != nil {
			return heard, err
		}
		heard = true
		if err := stream.Send(c.take(response)); err != nil {
			return heard, err
		}
	}
}

// take applies a response and returns its answer.
func (c *Client) take(r *discoveryv3.DeltaDiscoveryResponse) *discoveryv3.DeltaDiscoveryRequest {
	answer := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}
	if err := c.apply(r); err != nil {
		c.cfg.Log.Error("config refused, the last good one stays", "type_url", r.GetTypeUrl(), "nonce", r.GetNonce(), "err", err)
		// Words that are no UTF-8 would end the stream, for ever.
		words := strings.ToValidUTF8(err.Error(), "\uFFFD")
		answer.ErrorDetail = &status.Status{Code: int32(codes.InvalidArgument), Message: strings.ToValidUTF8(words[:min(len(words), maxWords)], "")}
		return answer
	}
	held := c.versions[r.GetTypeUrl()]
	for _, one := range r.GetResources() {
		held[one.GetName()] = one.GetVersion()
	}
	for _, name := range r.GetRemovedResources() {
		delete(held, name)
	}
	return answer
}

// apply hands on what is whole; a response that is not reaches nobody.
func (c *Client) apply(r *discoveryv3.DeltaDiscoveryResponse) error {
	if _, known := c.versions[r.GetTypeUrl()]; !known {
		return fmt.Errorf("type %q was not asked for", r.GetTypeUrl())
	}
	u := Update{Type: r.GetTypeUrl(), Removed: r.GetRemovedResources()}
	for _, one := range r.GetResources() {
		if one.GetName() == "" || one.GetResource().GetTypeUrl() != r.GetTypeUrl() {
			return fmt.Errorf("resource %q holds a %q, not a %s", one.GetName(), one.GetResource().GetTypeUrl(), r.GetTypeUrl())
		}
		u.Upserts = append(u.Upserts, Resource{Name: one.GetName(), Version: one.GetVersion(), Body: one.GetResource()})
	}
	return c.cfg.Apply(u)
}
