package check_test

import (
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/golang-jwt/jwt/v5"

	"tollgate/extauthz/check"
	"tollgate/extauthz/credential"
	"tollgate/extauthz/policy"
)

// TestMirrorHasItsOwnToken: a copy of the request must be worth nothing at the
// primary, nor the primary's token at the mirror.
func TestMirrorHasItsOwnToken(t *testing.T) {
	g := newGate(t, nil)
	response := g.At(t.Context(), request("mirrored@1", "GET", "/", "x-api-key", g.key), time.Now())
	closed(t, response)
	primary, copied := headersOf(response)["x-auth-token"], metadataOf(response)["mirror-token"]
	if _, err := g.verify.Verify(primary, time.Now()); err != nil {
		t.Error(err)
	}
	if claims, err := g.copies.Verify(copied, time.Now()); err != nil || claims.Subject != "bob" {
		t.Errorf("%+v, %v", claims, err)
	}
	if _, err := g.verify.Verify(copied, time.Now()); err == nil {
		t.Error("the mirror's token counts at the primary")
	}
	if _, err := g.copies.Verify(primary, time.Now()); err == nil {
		t.Error("the primary's token counts at the mirror")
	}
	plain := g.At(t.Context(), request("orders@1", "GET", "/", "x-api-key", g.key), time.Now())
	if _, there := metadataOf(plain)["mirror-token"]; there {
		t.Error("a second token where no mirror is")
	}
}

// TestStreamsEndWithTheirCredential: the first of the credentials to end ends
// the request, however old the answer is that is given again.
func TestStreamsEndWithTheirCredential(t *testing.T) {
	g := newGate(t, nil)
	now := time.Now().Truncate(time.Second)
	token := g.token(t, jwt.MapClaims{"exp": now.Add(20 * time.Second).Unix()})
	left := func(name string, at time.Time, headers ...string) time.Duration {
		t.Helper()
		response := g.At(t.Context(), request(name, "GET", "/", headers...), at)
		closed(t, response)
		if response.GetOkResponse() == nil {
			t.Fatal(response)
		}
		text, there := headersOf(response)["x-envoy-upstream-stream-duration-ms"]
		if !there {
			return -1
		}
		milliseconds, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(milliseconds) * time.Millisecond
	}
	bearer := []string{"authorization", "Bearer " + token}
	both := append([]string{"x-api-key", g.key}, bearer...)
	if got := left("stream@1", now, bearer...); got != 20*time.Second {
		t.Errorf("a token of 20 s: %v", got)
	}
	if got := left("stream@1", now.Add(15*time.Second), bearer...); got != 5*time.Second {
		t.Errorf("15 s later, by the same answer: %v", got)
	}
	if got := left("stream@1", now.Add(20*time.Second-time.Microsecond), bearer...); got != time.Millisecond {
		t.Errorf("at its end, where 0 would mean no bound: %v", got)
	}
	if got := left("stream@1", now, "x-api-key", g.key); got != -1 {
		t.Errorf("a key without an end: %v", got)
	}
	if got := left("both@1", now, both...); got != 20*time.Second {
		t.Errorf("a key without an end names the caller, but the token ends: %v", got)
	}
	if got := left("orders@1", now, bearer...); got != -1 {
		t.Errorf("no stream: %v", got)
	}
	for name, end := range map[string]func(*credential.Key){
		"expires":      func(k *credential.Key) { k.Expires = now.Add(9 * time.Second) },
		"revoked soon": func(k *credential.Key) { k.Revoked, k.Expires = now.Add(9*time.Second), now.Add(time.Minute) },
		"expires first": func(k *credential.Key) {
			k.Expires, k.Revoked = now.Add(9*time.Second), now.Add(time.Minute)
		},
	} {
		key := g.stored
		end(&key)
		g.use(func(s *check.Snapshot) {
			s.Credentials = credential.NewVerifier(g.issuers, g.index.Next(g.roles, []credential.Key{key}), credential.NewBulkhead(2))
		})
		if got := left("stream@1", now, "x-api-key", g.key); got != 9*time.Second {
			t.Errorf("a key that %s: %v", name, got)
		}
	}
}

// TestReadyAnswers: an answer is given again exactly while nothing that it
// depends on is different: an edit elsewhere costs no signature, and one that
// concerns it counts at once.
func TestReadyAnswers(t *testing.T) {
	now := time.Now()
	other, _, err := credential.NewKey(credential.KeySpec{Tenant: "globex"}, now)
	if err != nil {
		t.Fatal(err)
	}
	keys := func(g *gate, roles policy.Roles, list ...credential.Key) func(*check.Snapshot) {
		return func(s *check.Snapshot) {
			s.Credentials = credential.NewVerifier(g.issuers, g.index.Next(roles, list), credential.NewBulkhead(2))
		}
	}
	changed := func(g *gate, change func(*credential.Key)) func(*check.Snapshot) {
		key := g.stored
		change(&key)
		return keys(g, g.roles, key)
	}
	for name, c := range map[string]struct {
		edit  func(*gate) func(*check.Snapshot)
		fresh bool
	}{
		"another tenant": {edit: func(*gate) func(*check.Snapshot) {
			return func(s *check.Snapshot) { s.Tenants = policy.Tenants{"acme": "pro", "globex": "free"} }
		}},
		"another key": {edit: func(g *gate) func(*check.Snapshot) { return keys(g, g.roles, g.stored, other) }},
		"another role": {edit: func(g *gate) func(*check.Snapshot) {
			return keys(g, policy.Roles{"clerk": {"orders:*"}, "x": {"*"}}, g.stored)
		}},
		"another's policy": {edit: func(*gate) func(*check.Snapshot) { return without("ruled@1") }},
		"the tenant's plan": {fresh: true, edit: func(*gate) func(*check.Snapshot) {
			return func(s *check.Snapshot) { s.Tenants = policy.Tenants{"acme": "free"} }
		}},
		"the key header":  {fresh: true, edit: func(*gate) func(*check.Snapshot) { return func(s *check.Snapshot) { s.KeyHeader = "x-key" } }},
		"its own role":    {fresh: true, edit: func(g *gate) func(*check.Snapshot) { return keys(g, policy.Roles{"clerk": {"orders:read"}}, g.stored) }},
		"the key's owner": {fresh: true, edit: func(g *gate) func(*check.Snapshot) { return changed(g, func(k *credential.Key) { k.Owner = "eve" }) }},
		"the key's rights": {fresh: true, edit: func(g *gate) func(*check.Snapshot) {
			return changed(g, func(k *credential.Key) { k.Permissions = nil })
		}},
		"the key's end": {fresh: true, edit: func(g *gate) func(*check.Snapshot) {
			return changed(g, func(k *credential.Key) { k.Expires = now.Add(time.Hour) })
		}},
		"the key's removal":  {fresh: true, edit: func(g *gate) func(*check.Snapshot) { return keys(g, g.roles) }},
		"the key's revoking": {fresh: true, edit: func(g *gate) func(*check.Snapshot) { return changed(g, func(k *credential.Key) { k.Revoked = now }) }},
		"the policy":         {fresh: true, edit: func(*gate) func(*check.Snapshot) { return without("orders@1") }},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGate(t, nil)
			ask := func() *authv3.CheckResponse {
				header := g.snapshot.KeyHeader
				return g.At(t.Context(), request("orders@1", "GET", "/", header, g.key), now)
			}
			before := ask()
			g.use(c.edit(g))
			after := ask()
			if same := before == after; same == c.fresh {
				t.Errorf("the same answer: %v\n%v", same, after)
			}
			if name == "the tenant's plan" && metadataOf(after)["plan"] != "free" {
				t.Error(metadataOf(after))
			}
			if name == "the key header" && !slices.Contains(after.GetOkResponse().GetHeadersToRemove(), "x-key") {
				t.Error(after)
			}
		})
	}
}

func without(name string) func(*check.Snapshot) {
	return func(s *check.Snapshot) {
		s.Policies = maps.Clone(s.Policies)
		delete(s.Policies, name)
	}
}
