package stream

import (
	"context"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"tollgate/xds/push/slot"
	"tollgate/xds/release"
)

// meet takes the node of the first message.
func (st *Stream) meet(ctx context.Context, node *corev3.Node) error {
	if st.id != "" {
		return nil
	}
	client, err := st.site.Desk.Meet(ctx, node)
	if err != nil {
		return err
	}
	st.client, st.id, st.audience = client, node.GetId(), audienceOf(node)
	st.account = st.site.Ledger.Open(st.id, st.client.Identity)
	return nil
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
