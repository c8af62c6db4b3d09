package stream

import (
	"context"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tollgate/xds/push/slot"
	"tollgate/xds/release"
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

// meet takes the node of the first message.
func (st *Stream) meet(ctx context.Context, node *corev3.Node) error {
	if st.id != "" {
		return nil
	}
	if node.GetId() == "" {
		return status.Error(codes.InvalidArgument, "the first message of a stream must carry a node with an id")
	}
	if st.site.Admit != nil {
		client, err := st.site.Admit(ctx, node)
		if err != nil {
			st.site.Log.Warn("client turned away", "node", node.GetId(), "err", err)
			return status.Errorf(codes.PermissionDenied, "node %q: %v", node.GetId(), err)
		}
		st.client = client
	}
	st.id, st.audience = node.GetId(), audienceOf(node)
	st.account = st.site.Ledger.Open(st.id, st.client.Identity)
	return nil
}

// may says by its error whether the client may ask for a type.
func (st *Stream) may(url string) error {
	if st.client.Allows == nil || st.client.Allows(url) {
		return nil
	}
	st.site.Log.Warn("client asked for what is not its to have", "node", st.id, "identity", st.client.Identity, "type_url", url)
	return status.Errorf(codes.PermissionDenied, "%s may not ask for %s", st.client.Identity, url)
}

func audienceOf(node *corev3.Node) release.Audience {
	if node.GetCluster() == string(release.GRPC) {
		return release.GRPC
	}
	return release.Edge
}

// secretsAgain looks at the secrets once more after something was sent that may
// name one.
func (st *Stream) secretsAgain(url string) {
	sub := st.subs[release.TypeSecret]
	if sub == nil || !st.client.NamedSecrets || url != release.TypeListener && url != release.TypeCluster {
		return
	}
	sub.rescan = true
	st.Wake()
}

// shown says whether the client may see a secret now.
func (p *plan) shown(name string) bool {
	if !p.stream.client.NamedSecrets {
		return true
	}
	for _, one := range p.view.Naming(p.stream.audience, name) {
		if sub := p.stream.subs[one.Type]; sub != nil {
			if s := sub.slots.Get(one.Name); s.There() && s.Phase != slot.Ghost {
				return true
			}
		}
	}
	return false
}
