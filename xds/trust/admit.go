package trust

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"tollgate/api/contract"
	"tollgate/internal/peer"
	"tollgate/xds/push"
	"tollgate/xds/release"
)

// Admit says who the client of an xDS stream is and what it may ask for. Over a
// socket the kernel vouches for the user, who may be any node; over TLS the
// certificate's name is the node id and its role says the types; plain is
// --insecure: everybody is whom they claim to be, and nobody is remembered. refuse
// says why a member is not wanted any more; it is told so, and so knows that this
// is no outage. nil: all are wanted.
func Admit(plain bool, refuse func(peer.Identity) error) push.Admit {
	return func(ctx context.Context, node *corev3.Node) (push.Client, error) {
		who, known := peer.FromContext(ctx)
		switch {
		case known && who.Local:
			return push.Client{}, nil
		case known && who.Role != "":
			if refuse != nil {
				if err := refuse(who); err != nil {
					return push.Client{}, err
				}
			}
			return member(who, node)
		case plain:
			return push.Client{}, nil
		}
		return push.Client{}, errors.New("the connection does not prove who it is")
	}
}

func member(who peer.Identity, node *corev3.Node) (push.Client, error) {
	if node.GetId() != who.Name {
		return push.Client{}, fmt.Errorf("its certificate is that of %s/%s", who.Role, who.Name)
	}
	types := typesOf(who.Role)
	if len(types) == 0 {
		return push.Client{}, fmt.Errorf("its certificate is that of a %s, which has nothing to ask here", who.Role)
	}
	// Whom resources are for is told by the node's cluster.
	if forGRPC := node.GetCluster() == string(release.GRPC); forGRPC != (who.Role == contract.RoleClient) {
		return push.Client{}, fmt.Errorf("its certificate is that of a %s, its node's cluster is %q", who.Role, node.GetCluster())
	}
	return push.Client{
		Identity: who.Role + "/" + who.Name, NamedSecrets: true,
		Allows: func(url string) bool { return slices.Contains(types, url) },
	}, nil
}

func typesOf(role string) []string {
	switch role {
	case contract.RoleEdge:
		return []string{
			release.TypeListener, release.TypeScope, release.TypeRoute, release.TypeCluster, release.TypeEndpoint, release.TypeSecret, release.TypeRuntime,
		}
	case contract.RoleExtAuthz:
		return []string{release.TypePolicy, release.TypeIdentity}
	case contract.RoleRateLimit:
		return []string{release.TypeRuleSet, release.TypeRateLimit}
	case contract.RoleClient:
		return []string{release.TypeListener, release.TypeRoute, release.TypeCluster, release.TypeEndpoint}
	}
	return nil
}
