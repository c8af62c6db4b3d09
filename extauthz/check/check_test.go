package check_test

import (
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	authzv1 "tollgate/api/authz/v1"
	"tollgate/api/contract"
	"tollgate/extauthz/check"
	"tollgate/extauthz/policy"
	"tollgate/internal/envelope"
	"tollgate/internal/oneview"
)

// closed fails unless a response, as its bytes, is one that Envoy cannot take
// for an admission by accident.
func closed(t *testing.T, response *authv3.CheckResponse) {
	t.Helper()
	data, err := proto.Marshal(response)
	if err != nil || len(data) == 0 {
		t.Fatalf("%d bytes, %v: an empty message admits", len(data), err)
	}
	var wire authv3.CheckResponse
	if err := proto.Unmarshal(data, &wire); err != nil {
		t.Fatal(err)
	}
	switch arm := wire.GetHttpResponse().(type) {
	case *authv3.CheckResponse_OkResponse:
		if wire.GetStatus() == nil || wire.GetStatus().GetCode() != int32(codes.OK) {
			t.Fatal("ok_response with a status that is not OK")
		}
		for _, h := range arm.OkResponse.GetHeaders() {
			if a := h.GetAppend(); a == nil || a.GetValue() { //nolint:staticcheck // the field that ext_authz obeys
				t.Fatalf("%s is appended to what the client sent", h.GetHeader().GetKey())
			}
			if slices.Contains(arm.OkResponse.GetHeadersToRemove(), h.GetHeader().GetKey()) {
				t.Fatalf("%s is set and removed, so it is gone", h.GetHeader().GetKey())
			}
		}
	case *authv3.CheckResponse_DeniedResponse:
		if wire.GetStatus().GetCode() == 0 || arm.DeniedResponse.GetStatus().GetCode() < 400 {
			t.Fatalf("a refusal that admits: %v", &wire)
		}
	default:
		t.Fatalf("no http_response: %v", &wire)
	}
	for name, v := range wire.GetDynamicMetadata().GetFields() {
		if v.GetStringValue() == "" {
			t.Fatalf("metadata %s is not a text: %v", name, v)
		}
	}
}

func headersOf(r *authv3.CheckResponse) map[string]string {
	out := map[string]string{}
	for _, h := range append(r.GetOkResponse().GetHeaders(), r.GetDeniedResponse().GetHeaders()...) {
		name := h.GetHeader().GetKey()
		if before, ok := out[name]; ok {
			out[name] = before + " | " + h.GetHeader().GetValue()
			continue
		}
		out[name] = h.GetHeader().GetValue()
	}
	return out
}

func metadataOf(r *authv3.CheckResponse) map[string]string {
	out := map[string]string{}
	for k, v := range r.GetDynamicMetadata().GetFields() {
		out[k] = v.GetStringValue()
	}
	return out
}

func TestAdmitted(t *testing.T) {
	g := newGate(t, nil)
	token := g.token(t, nil)
	for name, c := range map[string]struct {
		request  *authv3.CheckRequest
		headers  map[string]string // but for the token
		removed  []string
		metadata map[string]string
	}{
		"key": {
			request("orders@1", "GET", "/api/orders?x=%25&y", "x-api-key", g.key),
			map[string]string{"x-auth-tenant": "acme", "x-auth-user": "bob", "x-auth-kind": "api_key"},
			[]string{"authorization", "x-api-key"},
			map[string]string{"tenant": "acme", "user": "bob", "plan": "pro", "kind": "api_key", "credential": g.key[9:21], "cost": "1", "policy": "orders@1", "rule": "(none)", "claim:region": "(none)"},
		},
		"token": {
			request("orders@1", "POST", "/", "authorization", "bearer "+token),
			map[string]string{"x-auth-tenant": "acme", "x-auth-user": "ann", "x-auth-kind": "jwt"},
			[]string{"authorization", "x-api-key"},
			map[string]string{"tenant": "acme", "user": "ann", "plan": "pro", "kind": "jwt", "credential": "t-1", "cost": "1", "policy": "orders@1", "rule": "(none)", "claim:region": "eu"},
		},
		"rule": {
			request("ruled@1", "HEAD", "/", "authorization", "Bearer "+token),
			map[string]string{"x-auth-tenant": "acme", "x-auth-user": "ann", "x-auth-kind": "jwt"},
			[]string{"authorization", "x-api-key"},
			map[string]string{"tenant": "acme", "user": "ann", "plan": "pro", "kind": "jwt", "credential": "t-1", "cost": "1", "policy": "ruled@1", "rule": "authorize[0]"},
		},
		"forward": {
			request("forward@1", "GET", "/", "x-api-key", g.key),
			map[string]string{"x-auth-tenant": "acme", "x-auth-user": "bob", "x-auth-kind": "api_key"},
			nil,
			map[string]string{"tenant": "acme", "user": "bob", "plan": "pro", "kind": "api_key", "credential": g.key[9:21], "cost": "1", "policy": "forward@1", "rule": "(none)"},
		},
		"public": {
			request("public@1", "GET", "/"),
			map[string]string{},
			[]string{"authorization", "x-api-key"},
			map[string]string{"tenant": "(none)", "user": "(none)", "plan": "(none)", "kind": "(none)", "credential": "(none)", "cost": "1", "policy": "public@1", "rule": "(none)"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, r := range []*authv3.CheckRequest{c.request, joinedHeaders(proto.Clone(c.request).(*authv3.CheckRequest))} {
				response, err := g.Check(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				closed(t, response)
				got := headersOf(response)
				if response.GetOkResponse() == nil {
					t.Fatalf("refused: %v", response)
				}
				if passed := got["x-auth-token"]; len(c.headers) > 0 {
					claims, err := g.verify.Verify(passed, time.Now())
					if err != nil || claims.Subject != c.headers["x-auth-user"] || claims.Tenant != "acme" || len(claims.Permissions) == 0 {
						t.Errorf("%+v, %v", claims, err)
					}
				}
				delete(got, "x-auth-token")
				if !maps.Equal(got, c.headers) || !slices.Equal(response.GetOkResponse().GetHeadersToRemove(), c.removed) {
					t.Errorf("headers %v, removed %v", got, response.GetOkResponse().GetHeadersToRemove())
				}
				if m := metadataOf(response); !maps.Equal(m, c.metadata) {
					t.Errorf("metadata %v", m)
				}
			}
		})
	}
}

func TestRefused(t *testing.T) {
	g := newGate(t, nil)
	token := g.token(t, nil)
	with := func(headers ...string) *authv3.CheckRequest { return request("orders@1", "GET", "/", headers...) }
	path := func(p string) *authv3.CheckRequest { return request("orders@1", "GET", p, "x-api-key", g.key) }
	host := func(h string) *authv3.CheckRequest {
		r := with("x-api-key", g.key)
		r.GetAttributes().GetRequest().GetHttp().Host = h
		r.GetAttributes().GetRequest().GetHttp().GetHeaderMap().GetHeaders()[0].RawValue = []byte(h)
		return r
	}
	both := `Bearer realm="tollgate" | ApiKey realm="tollgate"`
	bad := `Bearer realm="tollgate", error="invalid_token" | ApiKey realm="tollgate"`
	bare := with("x-api-key", g.key)
	bare.Attributes.ContextExtensions = nil
	for name, c := range map[string]struct {
		request   *authv3.CheckRequest
		status    int
		reason    policy.Reason
		challenge string
	}{
		"nothing":                  {with(), 401, policy.MissingCredential, both},
		"another scheme":           {with("authorization", "Basic YTpi"), 401, policy.MissingCredential, both},
		"empty headers":            {with("authorization", "", "x-api-key", ""), 401, policy.MissingCredential, both},
		"bearer without token":     {with("authorization", "Bearer"), 401, policy.InvalidToken, bad},
		"bearer with tab":          {with("authorization", "Bearer\t"+token), 401, policy.MissingCredential, both},
		"garbage token":            {with("authorization", "Bearer x"), 401, policy.InvalidToken, bad},
		"expired token":            {with("authorization", "Bearer "+g.token(t, jwt.MapClaims{"exp": time.Now().Unix()})), 401, policy.ExpiredToken, bad},
		"unknown key":              {with("x-api-key", g.key[:len(g.key)-1]+"!"), 401, policy.UnknownKey, both},
		"both":                     {with("authorization", "Bearer "+token, "x-api-key", g.key), 401, policy.AmbiguousCredentials, both},
		"two authorizations":       {with("authorization", "Bearer "+token, "authorization", "Bearer "+token), 400, policy.BadRequest, ""},
		"two joined":               {with("authorization", "Bearer a,Bearer b"), 400, policy.BadRequest, ""},
		"two keys":                 {with("x-api-key", g.key, "x-api-key", "b"), 400, policy.BadRequest, ""},
		"two keys joined":          {with("x-api-key", g.key+","+g.key), 400, policy.BadRequest, ""},
		"two hosts":                {with("x-api-key", g.key, "host", "other"), 400, policy.BadRequest, ""},
		"joined host":              {host("a.com,b.com"), 400, policy.BadRequest, ""},
		"user in host":             {host("u@host"), 400, policy.BadRequest, ""},
		"path in host":             {host("host/x"), 400, policy.BadRequest, ""},
		"port in host":             {host("host:80"), 400, policy.BadRequest, ""}, // Envoy took one away: there were two
		"dot after host":           {host("host.test."), 400, policy.BadRequest, ""},
		"colon after host":         {host("host.test:80:"), 400, policy.BadRequest, ""},
		"brackets around host":     {host("[host.test]"), 400, policy.BadRequest, ""},
		"bracket after host":       {host("host.test]"), 400, policy.BadRequest, ""},
		"empty host":               {host(""), 400, policy.BadRequest, ""},
		"path parameter":           {path("/admin;x=1"), 400, policy.BadRequest, ""},
		"dots and parameter":       {path("/public/..;/admin"), 400, policy.BadRequest, ""},
		"double escape":            {path("/public/%252e%252e/admin"), 400, policy.BadRequest, ""},
		"null":                     {path("/admin%00"), 400, policy.BadRequest, ""},
		"control":                  {path("/admin%1F"), 400, policy.BadRequest, ""},
		"raw control":              {path("/admin\x01"), 400, policy.BadRequest, ""},
		"broken escape":            {path("/a%zz"), 400, policy.BadRequest, ""},
		"short escape":             {path("/a%4"), 400, policy.BadRequest, ""},
		"overlong two":             {path("/%c0%ae%c0%ae/"), 400, policy.BadRequest, ""},
		"overlong three":           {path("/%e0%80%ae/"), 400, policy.BadRequest, ""},
		"overlong four":            {path("/%f0%80%80%ae/"), 400, policy.BadRequest, ""},
		"backslash":                {path(`/a\b`), 400, policy.BadRequest, ""},
		"fragment":                 {path("/a#f"), 400, policy.BadRequest, ""},
		"rule says no":             {request("ruled@1", "POST", "/", "x-api-key", g.key), 403, policy.PermissionDenied, ""},
		"tenant":                   {with("authorization", "Bearer "+g.token(t, jwt.MapClaims{"tenant": "other"})), 403, policy.UnknownTenant, ""},
		"unknown policy":           {request("orders@2", "GET", "/", "x-api-key", g.key), 503, policy.PolicyNotReady, ""},
		"no policy":                {bare, 503, policy.PolicyNotReady, ""},
		"issuer not there":         {request("stranger@1", "GET", "/", "authorization", "Bearer "+token), 503, policy.PolicyNotReady, ""},
		"empty request":            {&authv3.CheckRequest{}, 503, policy.PolicyNotReady, ""},
		"policy, but no http":      {&authv3.CheckRequest{Attributes: &authv3.AttributeContext{ContextExtensions: map[string]string{"policy": "public@1"}}}, 503, policy.PolicyNotReady, ""},
		"public with hostile path": {request("public@1", "GET", "/x;y"), 400, policy.BadRequest, ""},
	} {
		t.Run(name, func(t *testing.T) {
			response, err := g.Check(t.Context(), c.request)
			if err != nil {
				t.Fatal(err)
			}
			closed(t, response)
			denied := response.GetDeniedResponse()
			if denied == nil || int(denied.GetStatus().GetCode()) != c.status {
				t.Fatalf("%v", response)
			}
			var body envelope.Body
			if err := json.Unmarshal([]byte(denied.GetBody()), &body); err != nil || body.Error.Reason != string(c.reason) || body.Error.Code != envelope.Code(c.status) {
				t.Errorf("%s, %v", denied.GetBody(), err)
			}
			headers := headersOf(response)
			if headers["content-type"] != "application/json" || headers["www-authenticate"] != c.challenge {
				t.Errorf("%v", headers)
			}
			if m := metadataOf(response); m["reason"] != string(c.reason) || m["policy"] == "" || m["rule"] == "" {
				t.Errorf("%v", m)
			}
			if text := response.String(); strings.Contains(text, token) || strings.Contains(text, g.key) {
				t.Error("a secret is in the answer")
			}
			if g.record.last.Reason != c.reason {
				t.Errorf("recorded %+v", g.record.last)
			}
		})
	}
}

func TestNoStateAndPanic(t *testing.T) {
	g := newGate(t, nil)
	empty := check.New(nil, slog.New(slog.DiscardHandler), g.record)
	response, _ := empty.Check(t.Context(), request("orders@1", "GET", "/", "x-api-key", g.key))
	closed(t, response)
	if response.GetDeniedResponse().GetStatus().GetCode() != 503 {
		t.Error(response)
	}
	// A snapshot with nothing in it panics on its first look-up.
	env := newGate(t, nil)
	broken := check.New(nil, slog.New(slog.DiscardHandler), panics{})
	broken.Use(&check.Snapshot{})
	response, err := broken.Check(t.Context(), request("orders@1", "GET", "/", "x-api-key", env.key))
	closed(t, response)
	if err != nil || response.GetDeniedResponse().GetStatus().GetCode() != 503 {
		t.Error(response, err)
	}
}

type panics struct{}

func (panics) Decided(*policy.Decision, string, time.Duration) { panic("boom") }

func TestTokenIsReusedForHalfItsLife(t *testing.T) {
	g := newGate(t, nil)
	r := request("orders@1", "GET", "/", "x-api-key", g.key)
	now := time.Now()
	first := headersOf(g.At(t.Context(), r, now))["x-auth-token"]
	if again := headersOf(g.At(t.Context(), r, now.Add(29*time.Second)))["x-auth-token"]; again != first {
		t.Error("a fresh token within half the life of the old one")
	}
	later := headersOf(g.At(t.Context(), r, now.Add(31*time.Second)))["x-auth-token"]
	if _, err := g.verify.Verify(later, now.Add(90*time.Second)); later == first || err != nil {
		t.Error("the token grew old", err)
	}
}

func TestHeaderValuesAreHarmless(t *testing.T) {
	g := newGate(t, nil)
	response, _ := g.Check(t.Context(), request("orders@1", "GET", "/", "authorization", "Bearer "+g.token(t, jwt.MapClaims{"sub": "a\r\nx-evil: 1\u00e9"})))
	closed(t, response)
	if user := headersOf(response)["x-auth-user"]; user != "a%0D%0Ax-evil: 1%C3%A9" {
		t.Errorf("%q", user)
	}
}

// TestUsersKeepApart: whatever two users are called, their headers differ.
func TestUsersKeepApart(t *testing.T) {
	g := newGate(t, nil)
	of := map[string]string{}
	for _, user := range []string{"a\r", "a%0D", "a%250D", "a\u00e9", "a%C3%A9", "100%", "100%25"} {
		response, _ := g.Check(t.Context(), request("orders@1", "GET", "/", "authorization", "Bearer "+g.token(t, jwt.MapClaims{"sub": user})))
		closed(t, response)
		header := headersOf(response)["x-auth-user"]
		if before, taken := of[header]; taken || header == "" {
			t.Errorf("%q and %q are both %q", before, user, header)
		}
		of[header] = user
	}
}

func TestGRPCClientsReadTheMessage(t *testing.T) {
	g := newGate(t, nil)
	response, _ := g.Check(t.Context(), request("orders@1", "POST", "/o.O/Get", "content-type", "application/grpc"))
	if body := response.GetDeniedResponse().GetBody(); body != "missing_credential: A credential is required" {
		t.Errorf("%q", body)
	}
}

// FuzzRequest varies what a client may, where FuzzCheck varies the wire.
func FuzzRequest(f *testing.F) {
	const looking = `"mode" in request.query && request.query["mode"] == "admin" || "x-mode" in request.headers && request.segments.exists(s, s == "a b")`
	g := newGate(f, discard{}, &authzv1.Policy{
		Name: "view@1", Route: "view", Audiences: []string{"orders"},
		Rules:       []*authzv1.Rule{{Id: "deny", Condition: &authzv1.Rule_Deny{Deny: looking}}, {Id: "allow", Condition: &authzv1.Rule_Allow{Allow: "true"}}},
		Credentials: &authzv1.Credentials{Mode: authzv1.Credentials_ANY_OF, Credentials: []*authzv1.Credential{{Kind: &authzv1.Credential_ApiKey{ApiKey: &authzv1.ApiKey{}}}}},
	})
	bearer := "Bearer " + g.token(f, nil)
	f.Add("orders@1", "GET", "/a%20b", "x-api-key", "k", "accept", "a", true)
	f.Add("view@1", "GET", "/x?%6dode=admin&mode=user", "accept", "a", "accept", "b", true)
	f.Add("view@1", "GET", "/x?mode[]=admin", "accept", "a", "cookie", "b", true)
	f.Add("view@1", "GET", "/x", "x-mode", "a", "X-Mode", "b", true)
	f.Add("view@1", "GET", "/x/a%20b", "x-mode", "caf\xc3\xa9", "authorization", "Basic x", true)
	f.Add("ruled@1", "POST", "/", "authorization", bearer[:len(bearer)-8]+"AAAAAAAA", "content-type", "application/grpc", false)
	f.Add("both@1", "HEAD", "/", "authorization", "bearer  x.y.z", "x-request-id", "\x1b[2J", true)
	f.Add("public@1", "get", "*", "host", "other.test", ":authority", "a b", false)
	f.Fuzz(func(t *testing.T, policy, method, path, name, value, other, second string, known bool) {
		headers := []string{name, value, other, second}
		if known {
			headers = append(headers, "x-api-key", g.key)
		}
		response, err := g.Check(t.Context(), request(policy, method, path, headers...))
		if err != nil {
			t.Fatal(err)
		}
		closed(t, response)
		if response.GetOkResponse() == nil {
			return
		}
		if !known && policy != "public@1" {
			t.Errorf("admitted without a credential: %q", headers)
		}
		target, err := oneview.Parse(path)
		if err != nil {
			t.Errorf("admitted %q: %v", path, err)
		}
		modes := 0
		for _, p := range target.Parameters {
			if oneview.Alias(p.Name, "mode") {
				modes++
				if p.Value == "admin" {
					modes++ // once is too much
				}
			}
		}
		if policy == "view@1" && (modes > 1 || strings.EqualFold(name, "x-mode") && strings.EqualFold(other, "x-mode")) {
			t.Errorf("admitted %q %q, which the rule denies, or which can be read in two ways", path, headers)
		}
	})
}

func FuzzCheck(f *testing.F) {
	g := newGate(f, discard{})
	for _, r := range []*authv3.CheckRequest{
		request("orders@1", "GET", "/a%20b", "x-api-key", g.key), request("ruled@1", "POST", "/", "authorization", "Bearer x.y.z"),
		request("public@1", "GET", "/"), joinedHeaders(request("forward@1", "GET", "/", "x-api-key", "k")),
		{},
	} {
		data, _ := proto.Marshal(r)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var r authv3.CheckRequest
		if proto.Unmarshal(data, &r) != nil {
			return
		}
		response, err := g.Check(t.Context(), &r)
		if err != nil {
			t.Fatal(err)
		}
		closed(t, response)
		name := r.GetAttributes().GetContextExtensions()[contract.KeyPolicy]
		sent := string(data)
		if response.GetOkResponse() != nil && name != "public@1" && !strings.Contains(sent, g.key) && !strings.Contains(sent, "Bearer") && !strings.Contains(sent, "bearer") {
			t.Fatalf("admitted without a credential: %v", &r)
		}
	})
}
