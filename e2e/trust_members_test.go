package e2e_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	limitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"tollgate/api/contract"
	"tollgate/e2e/harness"
	"tollgate/internal/peer"
	"tollgate/xds/release"
	"tollgate/xds/trust"
)

// forged shows one's certificate and believes the roots of another.
type forged struct{ shows, believes peer.Source }

func (f forged) GetX509SVID() (*x509svid.SVID, error) { return f.shows.GetX509SVID() }

func (f forged) GetX509BundleForTrustDomain(d spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return f.believes.GetX509BundleForTrustDomain(d)
}

// selfMade is a certificate of a CA of the attacker's own, by our names.
func selfMade(t *testing.T, role, name string) peer.Source {
	t.Helper()
	a, err := trust.Open(trust.Config{Dir: t.TempDir(), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return a.Own(role, name)
}

// ended is a certificate that this fleet once made.
func (f *fleet) ended(t *testing.T, role, name string) peer.Source {
	t.Helper()
	a, err := trust.Open(trust.Config{Dir: f.state, TTL: time.Minute, Now: func() time.Time { return time.Now().Add(-2 * time.Minute) }})
	if err != nil {
		t.Fatal(err)
	}
	return a.Own(role, name)
}

// subscribe asks for types as a node and returns how it ends, with what was read
// until then.
func subscribe(t *testing.T, conn *grpc.ClientConn, node *corev3.Node, within time.Duration, names map[string][]string, types ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return "", err
	}
	for _, url := range types {
		if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: url, ResourceNamesSubscribe: names[url]}); err != nil {
			break // Recv says why
		}
	}
	got := ""
	for {
		r, err := stream.Recv()
		if err != nil {
			return got, err
		}
		for _, one := range r.GetResources() {
			got += fmt.Sprintf("%s %s %s\n", r.GetTypeUrl(), one.GetName(), one.GetResource().GetValue())
		}
	}
}

// TestFleetStrangers: who has no certificate, one of his own, an ended one, or one
// of a role that has nothing to say there, reads nothing of any server, and a
// member gets what is its own alone.
func TestFleetStrangers(t *testing.T) {
	f := startFleet(t, time.Hour)
	edge := f.member(t, contract.RoleEdge, "edge-2")
	service := f.member(t, contract.RoleService, "user")
	client := f.member(t, contract.RoleClient, "greeter")
	authz := f.member(t, contract.RoleExtAuthz, "authz-2")
	private, err := os.ReadFile(f.dir + "/edge.key")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("doors", func(t *testing.T) { strangersAtDoors(t, f, edge, service, client, authz) })
	t.Run("roles", func(t *testing.T) {
		for _, c := range []struct {
			name          string
			who           peer.Source
			node, cluster string
			types         []string
			says          string
		}{
			{"an edge as another", edge, "edge-1", "edge", []string{release.TypeListener}, "its certificate is that of edge/edge-2"},
			{"an edge as an authorization server", edge, "authz-1", "edge", []string{release.TypePolicy}, "its certificate is that of edge/edge-2"},
			{"an edge as nobody", edge, "", "edge", []string{release.TypeListener}, "a node with an id"},
			{"an edge that asks for policies", edge, "edge-2", "edge", []string{release.TypePolicy}, "edge/edge-2 may not ask for"},
			{"an edge that asks for identities", edge, "edge-2", "edge", []string{release.TypeIdentity}, "edge/edge-2 may not ask for"},
			{"an edge that asks for limits", edge, "edge-2", "edge", []string{release.TypeRuleSet}, "edge/edge-2 may not ask for"},
			{"an edge that calls itself a client", edge, "edge-2", "grpc", []string{release.TypeListener}, "certificate is that of a edge"},
			{"an authorization server that asks for secrets", authz, "authz-2", "edge", []string{release.TypeSecret}, "extauthz/authz-2 may not ask for"},
			{"an authorization server that asks for listeners", authz, "authz-2", "edge", []string{release.TypeListener}, "extauthz/authz-2 may not ask for"},
			{"a client that asks for secrets", client, "greeter", "grpc", []string{release.TypeSecret}, "client/greeter may not ask for"},
			{"a client that asks for policies", client, "greeter", "grpc", []string{release.TypePolicy}, "client/greeter may not ask for"},
			{"a client that calls itself an edge", client, "greeter", "edge", []string{release.TypeListener}, "certificate is that of a client"},
			{"a client as an edge", client, "edge-1", "edge", []string{release.TypeListener}, "certificate is that of client/greeter"},
		} {
			names := map[string][]string{}
			if c.types[0] == release.TypeSecret {
				names[release.TypeSecret] = []string{"listener/https/0"}
			}
			got, err := subscribe(t, dial(t, f.xds, c.who, contract.RoleXDS), &corev3.Node{Id: c.node, Cluster: c.cluster}, 5*time.Second, names, c.types...)
			if got != "" || status.Code(err) != codes.PermissionDenied && status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v\n%s", c.name, err, got)
			}
			if c.node != "" {
				saysInLog(t, f.plane, `"level":"WARN"`, `"node":"`+c.node+`"`, c.says[strings.LastIndex(c.says, " ")+1:])
			}
		}
		// Its own role shows no key that no listener of its names.
		got, err := subscribe(t, dial(t, f.xds, edge, contract.RoleXDS), &corev3.Node{Id: "edge-2", Cluster: "edge"}, 700*time.Millisecond,
			map[string][]string{release.TypeSecret: {"listener/https/0"}}, release.TypeSecret)
		if strings.Contains(got, "PRIVATE KEY") || strings.Contains(got, strings.Split(string(private), "\n")[1]) || status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("a key without its listener: %v\n%s", err, got)
		}
		if got, _ := subscribe(t, dial(t, f.xds, client, contract.RoleXDS), &corev3.Node{Id: "greeter", Cluster: "grpc"}, 700*time.Millisecond, nil, release.TypeListener, release.TypeCluster); strings.Contains(got, "PRIVATE KEY") {
			t.Errorf("a client reads %s", got)
		}
	})
	t.Run("registry", func(t *testing.T) { membersAtRegistry(t, f, service, edge) })
	f.unmoved(t)
	after := f.status(t)
	for _, node := range []string{"edge-1 ", "authz-1 ", "limiter-1 "} {
		if !strings.Contains(after, node) {
			t.Errorf("%s is not connected:\n%s", node, after)
		}
	}
	if strings.Contains(after, "REFUSED") {
		t.Error(after)
	}
}

// strangersAtDoors knocks at each server with what is not enough there.
func strangersAtDoors(t *testing.T, f *fleet, edge, service, client, authz peer.Source) {
	for _, server := range []struct {
		address, role string
		process       *harness.Process
		enter         []peer.Source // by roles that are not its clients'
	}{
		{f.xds, contract.RoleXDS, f.plane, []peer.Source{service}},
		{f.extauthz, contract.RoleExtAuthz, f.authz, []peer.Source{service, client, authz}},
		{f.ratelimit, contract.RoleRateLimit, f.limiter, []peer.Source{service, client, authz}},
	} {
		refused := func() int { return strings.Count(server.process.Log(), `"connection refused`) }
		ask := func(conn *grpc.ClientConn) error {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			switch server.role {
			case contract.RoleExtAuthz:
				answer, err := authv3.NewAuthorizationClient(conn).Check(ctx, &authv3.CheckRequest{})
				if err == nil {
					return fmt.Errorf("it answers %v", answer)
				}
				return err
			case contract.RoleRateLimit:
				answer, err := limitv3.NewRateLimitServiceClient(conn).ShouldRateLimit(ctx, &limitv3.RateLimitRequest{Domain: "x"})
				if err == nil {
					return fmt.Errorf("it answers %v", answer)
				}
				return err
			}
			got, err := subscribe(t, conn, &corev3.Node{Id: "edge-1", Cluster: "edge"}, 3*time.Second, nil, release.TypeListener)
			if got != "" {
				return errors.New(got)
			}
			return err
		}
		sources := map[string]peer.Source{
			"self-made":               forged{selfMade(t, contract.RoleEdge, "edge-1"), edge},
			"self-made control plane": forged{selfMade(t, contract.RoleXDS, "xds-1"), edge},
			"ended":                   forged{f.ended(t, contract.RoleEdge, "edge-1"), edge},
		}
		for i, one := range server.enter {
			sources[fmt.Sprintf("of another role %d", i)] = one
		}
		for name, source := range sources {
			was := refused()
			if err := ask(dial(t, server.address, source, server.role)); status.Code(err) != codes.Unavailable {
				t.Errorf("%s at %s: %v", name, server.role, err)
			}
			harness.Eventually(t, 5*time.Second, server.role+" logs "+name, func() error {
				if refused() == was {
					return errors.New(server.process.Log())
				}
				return nil
			})
		}
		was := refused()
		plain, err := grpc.NewClient("passthrough:///"+server.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		if err := ask(plain); status.Code(err) != codes.Unavailable {
			t.Errorf("plain text at %s: %v", server.role, err)
		}
		plain.Close()
		for name, config := range map[string]*tls.Config{
			"no certificate": {InsecureSkipVerify: true, NextProtos: []string{"h2"}},
			"TLS 1.2":        {InsecureSkipVerify: true, NextProtos: []string{"h2"}, MaxVersion: tls.VersionTLS12},
		} {
			c, err := tls.DialWithDialer(&net.Dialer{Timeout: 3 * time.Second}, "tcp", server.address, config)
			if err != nil {
				continue // not even a handshake
			}
			_ = c.SetDeadline(time.Now().Add(3 * time.Second))
			_, _ = io.WriteString(c, grpcHello)
			if n, err := c.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s at %s: %d bytes, %v", name, server.role, n, err)
			}
			_ = c.Close()
		}
		harness.Eventually(t, 5*time.Second, server.role+" logs those without", func() error {
			if refused() < was+3 {
				return errors.New(server.process.Log())
			}
			return nil
		})
	}
}

// membersAtRegistry: a service registers itself with its certificate, where it
// may be, and nobody else registers anybody.
func membersAtRegistry(t *testing.T, f *fleet, user, edge peer.Source) {
	own := harness.NewUpstream(t, "own").Address
	web := func(source peer.Source) *http.Client {
		config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}
		if source != nil {
			config = peer.Mutual{Source: source, Roles: []string{contract.RoleXDS}}.Client("http/1.1")
		}
		return &http.Client{Timeout: 5 * time.Second, Transport: elsewhere(config)}
	}
	for _, c := range []struct {
		name             string
		who              peer.Source
		method, instance string
		address          string
		status           int
		logged           string
	}{
		{"itself", user, "PUT", "user/1", own, 204, ""},
		{"its gRPC half", user, "PUT", "user-grpc/1", own, 204, ""},
		{"another's name", user, "PUT", "order/1", own, 401, "the certificate is another's"},
		{"another's removal", user, "DELETE", "order/1", own, 401, "the certificate is another's"},
		{"a longer name", user, "PUT", "user2/1", own, 401, "the certificate is another's"},
		{"an authorization server's place", user, "PUT", "user/2", f.extauthz, 400, "the gateway itself"},
		{"the control plane's place, mapped", user, "PUT", "user/2", "[::ffff:" + strings.Replace(f.xds, ":", "]:", 1), 400, "the gateway itself"},
		{"a listener's place", user, "PUT", "user/2", f.base, 400, "the gateway itself"},
		{"metadata", user, "PUT", "user/2", "169.254.169.254:80", 400, "link-local"},
		{"outside of its networks", user, "PUT", "user/2", "10.0.0.1:80", 400, "no network where user may be"},
		{"an edge", edge, "PUT", "user/2", own, 401, "the certificate is another's"},
		{"an edge by its name", edge, "PUT", "edge-2/1", own, 401, "the certificate is another's"},
		{"nobody", nil, "PUT", "user/2", own, 401, "no token of this service"},
		{"nobody's removal", nil, "DELETE", "user/1", own, 401, "no token of this service"},
	} {
		request, err := http.NewRequestWithContext(t.Context(), c.method, "https://"+f.xds+"/v1/registry/"+c.instance, strings.NewReader(`{"address":"`+c.address+`","ttl_s":300}`))
		if err != nil {
			t.Fatal(err)
		}
		response, err := web(c.who).Do(request)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		text, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != c.status {
			t.Errorf("%s: %d %s, want %d", c.name, response.StatusCode, text, c.status)
		}
		if c.logged != "" {
			saysInLog(t, f.plane, "registration refused", c.logged)
		}
	}
	for _, source := range []peer.Source{forged{selfMade(t, contract.RoleService, "user"), user}, forged{f.ended(t, contract.RoleService, "user"), user}} {
		if response, err := web(source).Get("https://" + f.xds + "/v1/registry"); err == nil {
			response.Body.Close()
			t.Errorf("a forged certificate is answered %d", response.StatusCode)
		}
	}
	harness.Eventually(t, 10*time.Second, "it is served where it said", func() error {
		return gives("http://"+f.base+"/user/x", nil, http.StatusOK)
	})
}
