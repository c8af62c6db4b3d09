package check_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"log/slog"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/golang-jwt/jwt/v5"

	authzv1 "tollgate/api/authz/v1"
	"tollgate/api/contract"
	"tollgate/extauthz/check"
	"tollgate/extauthz/credential"
	"tollgate/extauthz/policy"
	"tollgate/internal/celenv"
	"tollgate/internal/identity"
	"tollgate/internal/jwks"
)

// gate is a server with one key, one issuer and some policies.
type gate struct {
	*check.Server
	key    string
	verify *identity.Verifier
	copies *identity.Verifier // of a mirror
	issuer ed25519.PrivateKey
	record *recorder
	// What the snapshot in force is made of, for others that differ in one thing.
	snapshot check.Snapshot
	stored   credential.Key
	roles    policy.Roles
	index    *credential.KeyIndex
	issuers  map[string]*credential.Issuer
}

// use puts a snapshot in force that differs from the last.
func (g *gate) use(change func(*check.Snapshot)) {
	next := g.snapshot
	change(&next)
	g.snapshot = next
	g.Use(&next)
}

type recorder struct {
	sync.Mutex
	last policy.Decision
	n    int
}

func (r *recorder) Decided(d *policy.Decision, _ string, _ time.Duration) {
	r.Lock()
	defer r.Unlock()
	r.last = *d
	r.n++
}

type discard struct{}

func (discard) Decided(*policy.Decision, string, time.Duration) {}

func policies() []*authzv1.Policy {
	jwtKind := &authzv1.Credential{Kind: &authzv1.Credential_Jwt{Jwt: "platform"}}
	keyKind := &authzv1.Credential{Kind: &authzv1.Credential_ApiKey{ApiKey: &authzv1.ApiKey{}}}
	either := &authzv1.Credentials{Mode: authzv1.Credentials_ANY_OF, Credentials: []*authzv1.Credential{jwtKind, keyKind}}
	rule := &authzv1.Rule{Id: "authorize[0]", Condition: &authzv1.Rule_Allow{Allow: `auth.can("orders:read") && request.method in ["GET", "HEAD"] && auth.tenant == "acme"`}}
	return []*authzv1.Policy{
		{Name: "orders@1", Route: "orders", Credentials: either, Audiences: []string{"orders", "orders-v2"}, LimitClaims: []string{"region"}},
		{Name: "ruled@1", Route: "ruled", Credentials: either, Audiences: []string{"orders"}, Rules: []*authzv1.Rule{rule}},
		{Name: "mirrored@1", Route: "mirrored", Credentials: either, Audiences: []string{"orders"}, MirrorAudience: "copy"},
		{Name: "stream@1", Route: "stream", Credentials: either, Audiences: []string{"orders"}, Streams: true},
		{Name: "both@1", Route: "both", Audiences: []string{"orders"}, Streams: true, Credentials: &authzv1.Credentials{
			Mode: authzv1.Credentials_ALL_OF, Credentials: []*authzv1.Credential{keyKind, jwtKind},
		}},
		{Name: "strict@1", Route: "strict", Credentials: either, Audiences: []string{"orders"}, Rules: []*authzv1.Rule{{Id: "authorize[0]", Condition: &authzv1.Rule_Permission{Permission: "orders:delete"}}}},
		{Name: "forward@1", Route: "forward", Credentials: either, Audiences: []string{"orders"}, Forward: true},
		{Name: "public@1", Route: "public", Credentials: &authzv1.Credentials{Mode: authzv1.Credentials_PUBLIC}},
		{Name: "stranger@1", Route: "stranger", Audiences: []string{"x"}, Credentials: &authzv1.Credentials{
			Mode: authzv1.Credentials_ANY_OF, Credentials: []*authzv1.Credential{{Kind: &authzv1.Credential_Jwt{Jwt: "gone"}}},
		}},
	}
}

func newGate(t testing.TB, record check.Recorder, further ...*authzv1.Policy) *gate {
	t.Helper()
	return newGateLogging(t, record, slog.New(slog.DiscardHandler), further...)
}

func newGateLogging(t testing.TB, record check.Recorder, log *slog.Logger, further ...*authzv1.Policy) *gate {
	t.Helper()
	env, err := celenv.New()
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{record: &recorder{}}
	if record == nil {
		record = g.record
	}
	_, signing, _ := ed25519.GenerateKey(rand.Reader)
	signer, err := identity.NewSigner(signing)
	if err != nil {
		t.Fatal(err)
	}
	if g.verify, err = identity.NewVerifier(signer.KeySet(), "orders"); err != nil {
		t.Fatal(err)
	}
	if g.copies, err = identity.NewVerifier(signer.KeySet(), "copy"); err != nil {
		t.Fatal(err)
	}
	stored, secret, err := credential.NewKey(credential.KeySpec{Tenant: "acme", Owner: "bob", Permissions: []string{"clerk"}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	g.key = secret
	var public ed25519.PublicKey
	public, g.issuer, _ = ed25519.GenerateKey(rand.Reader)
	roles := policy.Roles{"clerk": {"orders:*"}}
	g.stored, g.roles = stored, roles
	issuer := credential.NewIssuer(&authzv1.Issuer{
		Name: "platform", Issuer: "https://issuer.test", Audiences: []string{"api"}, Typ: []string{"at+jwt", "JWT"},
		TenantClaim: []string{"tenant"}, UserClaim: []string{"sub"}, PermissionsClaim: []string{"permissions"},
	}, roles, credential.StaticKeys(jwks.NewSet(jwks.Key{ID: "k", Alg: jwks.EdDSA, Public: public})))
	compiled := map[string]*policy.Policy{}
	for _, p := range append(policies(), further...) {
		if compiled[p.GetName()], err = policy.Compile(env, p); err != nil {
			t.Fatal(err)
		}
	}
	g.Server = check.New(signer, log, record)
	g.issuers, g.index = map[string]*credential.Issuer{"platform": issuer}, credential.NewKeyIndex(roles, []credential.Key{stored})
	g.use(func(s *check.Snapshot) {
		*s = check.Snapshot{
			Policies: compiled, Tenants: policy.Tenants{"acme": "pro"}, KeyHeader: "x-api-key", Credentials: credential.NewVerifier(g.issuers, g.index, credential.NewBulkhead(2)),
		}
	})
	return g
}

func (g *gate) token(t testing.TB, extra jwt.MapClaims) string {
	t.Helper()
	claims := jwt.MapClaims{
		"iss": "https://issuer.test", "aud": "api", "sub": "ann", "tenant": "acme", "jti": "t-1", "region": "eu",
		"permissions": "orders:read", "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(),
	}
	for k, v := range extra {
		claims[k] = v
	}
	unsigned := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims)
	unsigned.Header["kid"] = "k"
	signed, err := unsigned.SignedString(g.issuer)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// request is what Envoy sends with encode_raw_headers.
func request(name, method, path string, headers ...string) *authv3.CheckRequest {
	list := []*corev3.HeaderValue{
		{Key: ":authority", RawValue: []byte("api.example.com")},
		{Key: ":path", RawValue: []byte(path)},
		{Key: ":method", RawValue: []byte(method)},
		{Key: ":scheme", RawValue: []byte("https")},
		{Key: "x-request-id", RawValue: []byte("r-1")},
		{Key: "x-forwarded-proto", RawValue: []byte("https")},
		{Key: "user-agent", RawValue: []byte("curl/8.5.0")},
		{Key: "accept", RawValue: []byte("*/*")},
	}
	for i := 0; i+1 < len(headers); i += 2 {
		list = append(list, &corev3.HeaderValue{Key: headers[i], RawValue: []byte(headers[i+1])})
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: "10.0.0.7"},
		}}},
		ContextExtensions: map[string]string{contract.KeyPolicy: name},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: method, Path: path, Host: "api.example.com", Scheme: "https", HeaderMap: &corev3.HeaderMap{Headers: list},
		}},
	}}
}

// joinedHeaders rewrites a request into Envoy's other encoding.
func joinedHeaders(r *authv3.CheckRequest) *authv3.CheckRequest {
	h := r.GetAttributes().GetRequest().GetHttp()
	h.Headers = map[string]string{}
	for _, l := range h.GetHeaderMap().GetHeaders() {
		if before, ok := h.Headers[l.GetKey()]; ok {
			h.Headers[l.GetKey()] = before + "," + string(l.GetRawValue())
			continue
		}
		h.Headers[l.GetKey()] = string(l.GetRawValue())
	}
	h.HeaderMap = nil
	return r
}
