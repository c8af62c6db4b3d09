package order

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"

	userv1 "tollgate/api/user/v1"
	"tollgate/internal/otlp"
	"tollgate/services/kit/auth"
	"tollgate/services/kit/fault"
	"tollgate/services/kit/grpcx"
	"tollgate/services/kit/resilience"
)

// lookupTimeout bounds all attempts to ask for a user. It leaves the caller's
// own budget, of seconds, for the rest of the order.
const lookupTimeout = time.Second

// userPeer asks the user service.
type userPeer struct {
	conn   *grpc.ClientConn
	client userv1.UserServiceClient
	policy *resilience.Policy
}

func dialUsers(addresses []string, tracing *otlp.Tracing) (*userPeer, error) {
	policy, err := resilience.New(resilience.Config{Transient: grpcx.Transient})
	if err != nil {
		return nil, err
	}
	conn, err := grpcx.Dial(grpcx.ClientConfig{Peer: "user", Addresses: addresses, Token: auth.Token, Tracing: tracing})
	if err != nil {
		return nil, err
	}
	return &userPeer{conn: conn, client: userv1.NewUserServiceClient(conn), policy: policy}, nil
}

// check returns nil if the caller's tenant has this user.
func (p *userPeer) check(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	_, err := resilience.Do(ctx, p.policy, func(ctx context.Context) (*userv1.GetUserResponse, error) {
		return p.client.GetUser(ctx, &userv1.GetUserRequest{Id: id})
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, resilience.ErrOpen):
		return fault.Unavailable("The user service is unavailable", err)
	}
	return grpcx.FromPeer("user", err)
}

func (p *userPeer) close() error { return p.conn.Close() }
