package trust_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/credentials"
	grpcpeer "google.golang.org/grpc/peer"

	"tollgate/api/contract"
	"tollgate/internal/peer"
	"tollgate/xds/release"
	"tollgate/xds/trust"
)

// over is the context of a call over TLS with a certificate of role/name.
func over(t *testing.T, role, name string) context.Context {
	t.Helper()
	a, _ := open(t, t.TempDir(), time.Now)
	roles := []string{contract.RoleXDS, contract.RoleEdge, contract.RoleExtAuthz, contract.RoleRateLimit, contract.RoleService, contract.RoleClient}
	server, client := net.Pipe()
	defer client.Close()
	defer server.Close()
	ended := make(chan error, 1)
	go func() {
		config := peer.Mutual{Source: a.Own(role, name), Roles: roles}.Client("h2")
		c := tls.Client(client, config)
		err := c.Handshake()
		if err == nil {
			_, err = c.Read(make([]byte, 1)) // the tail of the handshake
		}
		ended <- err
	}()
	conn, info, err := peer.Mutual{Source: a.Own(contract.RoleXDS, "xds-1"), Roles: roles, Log: slog.New(slog.DiscardHandler)}.Credentials().ServerHandshake(server)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	<-ended
	return grpcpeer.NewContext(t.Context(), &grpcpeer.Peer{AuthInfo: info})
}

// TestAdmit: the certificate's name is the node id, its role the types.
func TestAdmit(t *testing.T) {
	all := []string{
		release.TypeListener, release.TypeRoute, release.TypeCluster, release.TypeEndpoint, release.TypeSecret,
		release.TypeRuntime, release.TypePolicy, release.TypeIdentity, release.TypeRuleSet, release.TypeRateLimit, release.TypeScope,
	}
	for _, c := range []struct {
		role, name    string
		node, cluster string
		allowed       string // a letter a type of all, or "" for turned away
	}{
		{"edge", "edge-1", "edge-1", "edge", "LRCESUs"},
		{"edge", "edge-1", "edge-2", "edge", ""},
		{"edge", "edge-1", "", "edge", ""},
		{"edge", "edge-1", "edge-1", "grpc", ""},
		{"extauthz", "a1", "a1", "tollgate-extauthz", "PI"},
		{"extauthz", "a1", "edge-1", "edge", ""},
		{"ratelimit", "r1", "r1", "tollgate-ratelimit", "lr"},
		{"service", "orders", "orders", "edge", ""},
		{"service", "edge-1", "edge-1", "edge", ""},
		{"xds", "xds-1", "xds-1", "edge", ""},
		{"client", "greeter", "greeter", "grpc", "LRCE"},
		{"client", "greeter", "greeter", "edge", ""},
	} {
		client, err := trust.Admit(false, nil)(over(t, c.role, c.name), &corev3.Node{Id: c.node, Cluster: c.cluster})
		if (err == nil) != (c.allowed != "") {
			t.Errorf("%s/%s as node %q of %q: %v", c.role, c.name, c.node, c.cluster, err)
			continue
		}
		if err != nil {
			continue
		}
		got := ""
		for i, url := range all {
			if client.Allows(url) {
				got += string("LRCESUPIlrs"[i])
			}
		}
		if got != c.allowed || !client.NamedSecrets || client.Identity != c.role+"/"+c.name {
			t.Errorf("%s/%s: %s, want %s; %+v", c.role, c.name, got, c.allowed, client)
		}
	}
}

// TestAdmitWithoutCertificate: who is nobody is turned away, unless plain text
// was asked for; then it is nobody in particular.
func TestAdmitWithoutCertificate(t *testing.T) {
	node := &corev3.Node{Id: "edge-1", Cluster: "edge"}
	for name, ctx := range map[string]context.Context{
		"no peer":         t.Context(),
		"another's TLS":   grpcpeer.NewContext(t.Context(), &grpcpeer.Peer{AuthInfo: credentials.TLSInfo{}}),
		"nobody's socket": grpcpeer.NewContext(t.Context(), &grpcpeer.Peer{AuthInfo: peer.Info{}}),
	} {
		if _, err := trust.Admit(false, nil)(ctx, node); err == nil {
			t.Errorf("%s: admitted", name)
		}
		if client, err := trust.Admit(true, nil)(ctx, node); err != nil || client.Identity != "" {
			t.Errorf("%s with --insecure: %v %+v", name, err, client)
		}
	}
	local := grpcpeer.NewContext(t.Context(), &grpcpeer.Peer{AuthInfo: peer.Info{Identity: peer.Identity{Local: true}}})
	if _, err := trust.Admit(false, nil)(local, node); err != nil {
		t.Errorf("a process of our own user: %v", err)
	}
}

// TestAdmitNobodyWhoWasRemoved: a member that was removed is told so; nobody else
// is asked about.
func TestAdmitNobodyWhoWasRemoved(t *testing.T) {
	refuse := func(who peer.Identity) error {
		if who.Name == "edge-1" && !who.NotBefore.IsZero() && who.NotBefore.Before(who.NotAfter) {
			return trust.ErrRemoved
		}
		return nil
	}
	for name, want := range map[string]error{"edge-1": trust.ErrRemoved, "edge-2": nil} {
		if _, err := trust.Admit(false, refuse)(over(t, contract.RoleEdge, name), &corev3.Node{Id: name, Cluster: "edge"}); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
