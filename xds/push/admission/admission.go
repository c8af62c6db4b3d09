// Package admission decides who the client of a stream is and what it may ask for.
// Invariants: nothing is sent to anybody, or kept of him, before it is known who he
// is; who is turned away is named in the log by the address that he came from, so
// that a log can be sampled by it.
package admission

import (
	"context"
	"log/slog"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Client is who a stream was admitted as.
type Client struct {
	// Identity is the client's authenticated name, never what it merely claims:
	// what it refused is remembered under it. Empty is nobody in particular, of
	// whom nothing outlives the stream.
	Identity string
	// Allows says whether the client may ask for a type; nil allows every type.
	// Asking for another ends the stream with PermissionDenied.
	Allows func(typeURL string) bool
	// NamedSecrets keeps every secret from the client that no listener and no
	// cluster names which it was sent on this stream.
	NamedSecrets bool
}

// Admit decides who the client of a stream is, from what its transport
// authenticated (in ctx) and the node that it claims to be. An error ends the
// stream with PermissionDenied before anything is sent or kept.
type Admit func(ctx context.Context, node *corev3.Node) (Client, error)

// Desk admits the clients of one server.
type Desk struct {
	Admit Admit        // nil admits everybody to everything, as nobody in particular
	Log   *slog.Logger // of who is turned away, by the attribute "address"
}

// Meet returns who the client is that says to be a node; ctx is that of its
// stream. The error is a gRPC status, to end the stream with.
func (d Desk) Meet(ctx context.Context, node *corev3.Node) (Client, error) {
	if node.GetId() == "" {
		return Client{}, status.Error(codes.InvalidArgument, "the first message of a stream must carry a node with an id")
	}
	if d.Admit == nil {
		return Client{}, nil
	}
	client, err := d.Admit(ctx, node)
	if err != nil {
		d.Log.Warn("client turned away", "address", address(ctx), "node", node.GetId(), "err", err)
		return Client{}, status.Errorf(codes.PermissionDenied, "node %q: %v", node.GetId(), err)
	}
	return client, nil
}

// May returns nil if a client, at a node, may ask for a type; the error is a gRPC status, to
// end the stream with.
func (d Desk) May(ctx context.Context, client Client, node, typeURL string) error {
	if client.Allows == nil || client.Allows(typeURL) {
		return nil
	}
	d.Log.Warn("client asked for what is not its to have", "address", address(ctx), "node", node, "identity", client.Identity, "type_url", typeURL)
	return status.Errorf(codes.PermissionDenied, "%s may not ask for %s", client.Identity, typeURL)
}

func address(ctx context.Context) string {
	if p, known := peer.FromContext(ctx); known {
		return p.Addr.String()
	}
	return ""
}
