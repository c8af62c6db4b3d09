package extauthz_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	authzv1 "tollgate/api/authz/v1"
	"tollgate/extauthz"
	"tollgate/extauthz/credential"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plane is a control plane that says what a test wants said.
type plane struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	address string

	send chan *discoveryv3.DeltaDiscoveryResponse
	acks chan *discoveryv3.DeltaDiscoveryRequest
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &plane{address: l.Addr().String(), send: make(chan *discoveryv3.DeltaDiscoveryResponse, 16), acks: make(chan *discoveryv3.DeltaDiscoveryRequest, 64)}
	s := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(s, p)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return p
}

func (p *plane) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	go func() {
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			if r.GetResponseNonce() != "" {
				p.acks <- r
			}
		}
	}()
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case r := <-p.send:
			if err := stream.Send(r); err != nil {
				return err
			}
		}
	}
}

// tell sends one response and returns the text of the refusal, "" for an ACK.
func (p *plane) tell(t *testing.T, removed []string, messages ...proto.Message) string {
	t.Helper()
	r := &discoveryv3.DeltaDiscoveryResponse{Nonce: rand.Text(), TypeUrl: extauthz.TypePolicy, RemovedResources: removed}
	for _, m := range messages {
		name := "identity"
		if p, ok := m.(*authzv1.Policy); ok {
			name = p.GetName()
		} else {
			r.TypeUrl = extauthz.TypeIdentity
		}
		body, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		r.Resources = append(r.Resources, &discoveryv3.Resource{Name: name, Version: rand.Text(), Resource: body})
	}
	p.send <- r
	select {
	case ack := <-p.acks:
		if ack.GetResponseNonce() != r.GetNonce() {
			t.Fatalf("nonce of another response: %v", ack)
		}
		return ack.GetErrorDetail().GetMessage()
	case <-time.After(5 * time.Second):
		t.Fatal("neither ACK nor NACK")
		return ""
	}
}

func identityOf() *authzv1.Identity {
	return &authzv1.Identity{
		ApiKeys: &authzv1.ApiKeys{Header: "x-api-key", Store: "keys.yaml"}, Tenants: map[string]string{"acme": "pro"},
		Issuers: []*authzv1.Issuer{{
			Name: "platform", Issuer: "https://issuer.test", Audiences: []string{"api"}, Typ: []string{"JWT"}, UserClaim: []string{"sub"},
			Jwks: &authzv1.Issuer_JwksInline{JwksInline: `{"keys":[]}`},
		}},
	}
}

func badURL() *authzv1.Identity {
	i := identityOf()
	i.Issuers[0].Jwks = &authzv1.Issuer_JwksUrl{JwksUrl: "http://issuer.test/jwks"}
	return i
}

func noKeys() *authzv1.Identity {
	i := identityOf()
	i.Issuers[0].Jwks = nil
	return i
}

func inline(text string) *authzv1.Identity {
	i := identityOf()
	i.Issuers[0].Jwks = &authzv1.Issuer_JwksInline{JwksInline: text}
	return i
}

func policyOf(name, allow string) *authzv1.Policy {
	return &authzv1.Policy{
		Name: name, Route: "orders", Audiences: []string{"orders"},
		Credentials: &authzv1.Credentials{Mode: authzv1.Credentials_ANY_OF, Credentials: []*authzv1.Credential{{Kind: &authzv1.Credential_ApiKey{ApiKey: &authzv1.ApiKey{}}}}},
		Rules:       []*authzv1.Rule{{Id: "authorize[0]", Condition: &authzv1.Rule_Allow{Allow: allow}}},
	}
}

func checkOf(name, key string) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		ContextExtensions: map[string]string{"policy": name},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: "/api/orders", Host: "api.example.com", Headers: map[string]string{"x-api-key": key},
		}},
	}}
}

// running is a server with a client of it.
type running struct {
	*extauthz.Server
	client authv3.AuthorizationClient
	health healthv1.HealthClient
	stop   context.CancelFunc
	done   chan error
	keys   string
}

func start(t *testing.T, p *plane) *running {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	dir := t.TempDir()
	s, err := extauthz.New(extauthz.Config{
		Listener: l, XDSServers: []string{p.address}, NodeID: "a1", IdentityKey: key, KeysBase: dir, Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Server: s, stop: cancel, done: make(chan error, 1), keys: filepath.Join(dir, "keys.yaml")}
	go func() { r.done <- s.Run(ctx) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	r.client, r.health = authv3.NewAuthorizationClient(conn), healthv1.NewHealthClient(conn)
	t.Cleanup(func() {
		_ = conn.Close()
		cancel()
		<-r.done
	})
	return r
}

func (r *running) status(t *testing.T, name, key string) int {
	t.Helper()
	response, err := r.client.Check(t.Context(), checkOf(name, key))
	if status.Code(err) == codes.Unavailable {
		return 503 // as Envoy answers when no other server helps
	}
	if err != nil {
		t.Fatal(err)
	}
	if response.GetOkResponse() != nil {
		return 200
	}
	return int(response.GetDeniedResponse().GetStatus().GetCode())
}

func eventually(t *testing.T, what string, within time.Duration, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

func TestServer(t *testing.T) {
	p := newPlane(t)
	r := start(t, p)
	const yes, no = `auth.tenant == "acme"`, `auth.tenant == "other"`
	if got := r.status(t, "orders@1", "k"); got != 503 || r.Ready() == nil {
		t.Errorf("before any config: %d, ready %v", got, r.Ready())
	}
	if fault := p.tell(t, nil, policyOf("orders@1", yes)); fault != "" {
		t.Fatal(fault)
	}
	if got := r.status(t, "orders@1", "k"); got != 503 || r.Ready() == nil {
		t.Errorf("a policy without identity: %d", got)
	}
	_, secret, err := credential.CreateKey(r.keys, credential.KeySpec{Tenant: "acme"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if fault := p.tell(t, nil, identityOf()); fault != "" {
		t.Fatal(fault)
	}
	eventually(t, "ready", time.Second, func() bool { return r.Ready() == nil })
	eventually(t, "healthy", time.Second, func() bool {
		h, err := r.health.Check(t.Context(), &healthv1.HealthCheckRequest{})
		return err == nil && h.GetStatus() == healthv1.HealthCheckResponse_SERVING
	})
	if got := r.status(t, "orders@1", secret); got != 200 {
		t.Errorf("good key: %d", got)
	}
	if got := r.status(t, "orders@1", "k"); got != 401 {
		t.Errorf("bad key: %d", got)
	}
	t.Run("an edit lives beside what it replaces", func(t *testing.T) {
		if fault := p.tell(t, []string{"orders@1"}, policyOf("orders@2", no)); fault != "" {
			t.Fatal(fault)
		}
		if got := r.status(t, "orders@1", secret); got != 200 {
			t.Errorf("the removed policy, still named by proxies: %d", got)
		}
		if got := r.status(t, "orders@2", secret); got != 403 {
			t.Errorf("the new policy: %d", got)
		}
	})
	t.Run("a refusal names its cause and changes nothing", func(t *testing.T) {
		for want, m := range map[string]proto.Message{
			`policy orders@3: rule 0 authorize[0]: 1:1: unknown field "auth.tennant"`: policyOf("orders@3", `auth.tennant == "a"`),
			`mode MODE_UNSPECIFIED`:   &authzv1.Policy{Name: "orders@3", Audiences: []string{"x"}},
			`has no audience`:         &authzv1.Identity{Issuers: []*authzv1.Issuer{{Name: "a", Issuer: "b"}}},
			`http only to loopback`:   badURL(),
			`neither keys nor a jwks`: noKeys(),
			`key set is not JSON`:     inline("nope"),
		} {
			if fault := p.tell(t, nil, m); !strings.Contains(fault, want) {
				t.Errorf("%q; want %q", fault, want)
			}
		}
		if got := r.status(t, "orders@2", secret); got != 403 {
			t.Error(got)
		}
	})
	t.Run("a key made or revoked counts within a second", func(t *testing.T) {
		key, second, err := credential.CreateKey(r.keys, credential.KeySpec{Tenant: "acme"}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the new key", time.Second, func() bool { return r.status(t, "orders@1", second) == 200 })
		if _, err := credential.RevokeKey(r.keys, key.ID, time.Now()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the revocation", time.Second, func() bool { return r.status(t, "orders@1", second) == 401 })
	})
	t.Run("a bad key file is a fault with its place", func(t *testing.T) {
		good, err := os.ReadFile(r.keys)
		if err != nil {
			t.Fatal(err)
		}
		save := func(text string) {
			if err := os.WriteFile(r.keys, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		save(strings.Replace(string(good), "  tenant: acme", "  revokd: 2026-01-01T00:00:00Z\n      tenant: acme", 1))
		eventually(t, "the fault", time.Second, func() bool {
			faults := strings.Join(r.Faults(), "|")
			return strings.Contains(faults, r.keys+":4:") && strings.Contains(faults, "revokd") && strings.Contains(faults, "does not count")
		})
		if got := r.status(t, "orders@1", secret); got != 200 {
			t.Errorf("the last good keys do not stay: %d", got)
		}
		save(string(good))
		eventually(t, "no fault", time.Second, func() bool { return !strings.Contains(strings.Join(r.Faults(), "|"), r.keys) })
	})
}
