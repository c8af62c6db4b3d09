package push_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"

	authzv1 "tollgate/api/authz/v1"
	"tollgate/internal/adsclient"
	"tollgate/xds/push"
	"tollgate/xds/release"
)

// serve runs a push server at an address until the returned stop is called.
func serve(t *testing.T, address string, r *release.Release) (string, func()) {
	t.Helper()
	s, err := push.New(push.Config{Log: slog.New(slog.DiscardHandler), Retire: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(push.ServerOptions()...)
	s.Register(g)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{}, 2)
	go func() { _ = s.Run(ctx); ended <- struct{}{} }()
	go func() { _ = g.Serve(lis); ended <- struct{}{} }()
	s.Publish(r)
	return lis.Addr().String(), func() { g.Stop(); cancel(); <-ended; <-ended }
}

func policySet(t *testing.T, names ...string) *release.Release {
	t.Helper()
	var objects []release.Object
	for _, name := range names {
		objects = append(objects, release.Object{Audience: release.Edge, Type: release.TypePolicy, Name: name, Message: &authzv1.Policy{}})
	}
	r, err := release.New(objects)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func nextUpdate(t *testing.T, updates <-chan adsclient.Update) adsclient.Update {
	t.Helper()
	select {
	case u := <-updates:
		return u
	case <-time.After(10 * time.Second):
		t.Fatal("no update came")
		return adsclient.Update{}
	}
}

func TestFollowsAndReconnectsWithDifferencesOnly(t *testing.T) {
	address, stop := serve(t, "127.0.0.1:0", policySet(t, "a", "b"))
	updates := make(chan adsclient.Update, 100)
	c, err := adsclient.New(adsclient.Config{
		Servers: []string{address}, NodeID: "n", NodeCluster: "tollgate-extauthz", Types: []string{release.TypePolicy},
		Apply: func(u adsclient.Update) error {
			updates <- u
			for _, one := range u.Upserts {
				if one.Name == "bad" {
					return errors.New("no such rule")
				}
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	if u := nextUpdate(t, updates); len(u.Upserts) != 2 || u.Type != release.TypePolicy {
		t.Fatalf("first update: %+v", u)
	}
	stop()
	_, stop = serve(t, address, policySet(t, "a", "c", "bad"))
	defer stop()
	if u := nextUpdate(t, updates); len(u.Upserts) != 2 || u.Upserts[0].Name != "bad" || u.Upserts[1].Name != "c" || len(u.Removed) != 0 {
		t.Fatalf("after the restart: %+v", u)
	}
	// Refused along with its neighbour, each goes alone; what is not served any
	// more goes when its time is up.
	var alone, removed []string
	for len(alone) < 2 || len(removed) < 1 {
		u := nextUpdate(t, updates)
		for _, one := range u.Upserts {
			alone = append(alone, one.Name)
		}
		removed = append(removed, u.Removed...)
	}
	if slices.Sort(alone); !slices.Equal(alone, []string{"bad", "c"}) || !slices.Equal(removed, []string{"b"}) {
		t.Fatalf("sent %v, removed %v", alone, removed)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}
