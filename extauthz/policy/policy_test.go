package policy_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	authzv1 "tollgate/api/authz/v1"
	"tollgate/extauthz/policy"
	"tollgate/internal/celenv"
)

// vault accepts the words "good-…" and refuses the rest, so that only the
// combination is under test here.
type vault map[string]*policy.Caller

func (v vault) Token(_ context.Context, issuers []string, token string, _ time.Time) (*policy.Caller, policy.Reason) {
	if c, ok := v[token]; ok && len(issuers) > 0 {
		return c, ""
	}
	return nil, policy.InvalidToken
}

func (v vault) Key(key string, _ time.Time) (*policy.Caller, policy.Reason) {
	if c, ok := v[key]; ok {
		return c, ""
	}
	return nil, policy.UnknownKey
}

func caller(kind, tenant, user string, permissions ...string) *policy.Caller {
	return &policy.Caller{Kind: kind, Tenant: tenant, User: user, Permissions: permissions, Grants: celenv.NewGrants(permissions)}
}

func creds() vault {
	return vault{
		"jwt-reader":   caller("jwt", "acme", "ann", "orders:read"),
		"jwt-stranger": caller("jwt", "nobody", "eve", "*"),
		"jwt-homeless": caller("jwt", "", "hal", "*"),
		"jwt-star":     caller("jwt", "*", "sly", "*"),
		"key-writer":   caller("api_key", "acme", "key:1", "orders:*"),
	}
}

func jwt(issuer string) *authzv1.Credential {
	return &authzv1.Credential{Kind: &authzv1.Credential_Jwt{Jwt: issuer}}
}

func key() *authzv1.Credential {
	return &authzv1.Credential{Kind: &authzv1.Credential_ApiKey{ApiKey: &authzv1.ApiKey{}}}
}

func pol(mode authzv1.Credentials_Mode, rules []*authzv1.Rule, c ...*authzv1.Credential) *authzv1.Policy {
	return &authzv1.Policy{
		Name: "r@1", Route: "r", Audiences: []string{"up"}, Rules: rules,
		Credentials: &authzv1.Credentials{Mode: mode, Credentials: c},
	}
}

func need(p string, methods ...string) *authzv1.Rule {
	return &authzv1.Rule{Id: "need " + p, Condition: &authzv1.Rule_Permission{Permission: p}, Methods: methods}
}

func allow(e string) *authzv1.Rule {
	return &authzv1.Rule{Id: "allow " + e, Condition: &authzv1.Rule_Allow{Allow: e}}
}

func deny(e string) *authzv1.Rule {
	return &authzv1.Rule{Id: "deny " + e, Condition: &authzv1.Rule_Deny{Deny: e}}
}

func shadow(r *authzv1.Rule) *authzv1.Rule { r.Shadow = true; return r }

func TestDecide(t *testing.T) {
	env, err := celenv.New()
	if err != nil {
		t.Fatal(err)
	}
	const public, any, all = authzv1.Credentials_PUBLIC, authzv1.Credentials_ANY_OF, authzv1.Credentials_ALL_OF
	tenants := policy.Tenants{"acme": "pro"}
	open := policy.Tenants{"acme": "pro", "*": "free"}
	either := []*authzv1.Credential{jwt("platform"), key()}
	rules := func(r ...*authzv1.Rule) []*authzv1.Rule { return r }
	for name, c := range map[string]struct {
		policy     *authzv1.Policy
		tenants    policy.Tenants
		method     string
		token, key string
		reason     policy.Reason
		user, plan string
	}{
		"public":                       {policy: pol(public, nil)},
		"public ignores credentials":   {policy: pol(public, nil), token: "bad"},
		"public with a deny":           {policy: pol(public, rules(deny(`request.method == "GET"`))), reason: policy.PermissionDenied},
		"nothing":                      {policy: pol(any, nil, either...), reason: policy.MissingCredential},
		"token":                        {policy: pol(any, nil, either...), token: "jwt-reader", user: "ann", plan: "pro"},
		"key":                          {policy: pol(any, nil, either...), key: "key-writer", user: "key:1", plan: "pro"},
		"bad token":                    {policy: pol(any, nil, either...), token: "bad", reason: policy.InvalidToken},
		"bad key":                      {policy: pol(any, nil, either...), key: "bad", reason: policy.UnknownKey},
		"both good":                    {policy: pol(any, nil, either...), token: "jwt-reader", key: "key-writer", reason: policy.AmbiguousCredentials},
		"both where one is taken":      {policy: pol(any, nil, key()), token: "x", key: "key-writer", reason: policy.AmbiguousCredentials},
		"a kind that is not taken":     {policy: pol(any, nil, key()), token: "jwt-reader", reason: policy.MissingCredential},
		"all: both":                    {policy: pol(all, nil, either...), token: "jwt-reader", key: "key-writer", user: "ann", plan: "pro"},
		"all: the first names":         {policy: pol(all, nil, key(), jwt("platform")), token: "jwt-reader", key: "key-writer", user: "key:1", plan: "pro"},
		"all: one missing":             {policy: pol(all, nil, either...), token: "jwt-reader", reason: policy.MissingCredential},
		"all: one bad":                 {policy: pol(all, nil, either...), token: "jwt-reader", key: "bad", reason: policy.UnknownKey},
		"unknown tenant":               {policy: pol(any, nil, either...), token: "jwt-stranger", reason: policy.UnknownTenant},
		"unknown tenant, open":         {policy: pol(any, nil, either...), tenants: open, token: "jwt-stranger", user: "eve", plan: "free"},
		"no tenant":                    {policy: pol(any, nil, either...), token: "jwt-homeless", reason: policy.UnknownTenant},
		"no tenant, open":              {policy: pol(any, nil, either...), tenants: open, token: "jwt-homeless", user: "hal"},
		"tenant named *":               {policy: pol(any, nil, either...), token: "jwt-star", reason: policy.UnknownTenant},
		"permission":                   {policy: pol(any, rules(need("orders:read")), either...), token: "jwt-reader", user: "ann", plan: "pro"},
		"permission missing":           {policy: pol(any, rules(need("orders:write")), either...), token: "jwt-reader", reason: policy.PermissionDenied},
		"permission by wildcard":       {policy: pol(any, rules(need("orders:write")), either...), key: "key-writer", user: "key:1", plan: "pro"},
		"rule of another method":       {policy: pol(any, rules(need("orders:read", "GET")), either...), method: "POST", token: "jwt-reader", reason: policy.PermissionDenied},
		"HEAD is GET":                  {policy: pol(any, rules(need("orders:read", "GET")), either...), method: "HEAD", token: "jwt-reader", user: "ann", plan: "pro"},
		"second allow":                 {policy: pol(any, rules(need("x:y"), allow(`auth.tenant == "acme"`)), either...), token: "jwt-reader", user: "ann", plan: "pro"},
		"deny beats allow":             {policy: pol(any, rules(allow("true"), deny(`auth.user == "ann"`)), either...), token: "jwt-reader", reason: policy.PermissionDenied},
		"deny that does not hold":      {policy: pol(any, rules(deny(`auth.user == "bob"`), allow("true")), either...), token: "jwt-reader", user: "ann", plan: "pro"},
		"deny that fails":              {policy: pol(any, rules(allow("true"), deny(`request.headers["x-a"] == "b"`)), either...), token: "jwt-reader", reason: policy.RuleError},
		"allow that fails":             {policy: pol(any, rules(allow(`request.headers["x-a"] == "b"`)), either...), token: "jwt-reader", reason: policy.RuleError},
		"allow after one that fails":   {policy: pol(any, rules(allow(`request.headers["x-a"] == "b"`), need("orders:read")), either...), token: "jwt-reader", user: "ann", plan: "pro"},
		"only denies":                  {policy: pol(any, rules(deny("false")), either...), token: "jwt-reader", reason: policy.PermissionDenied},
		"shadow deny":                  {policy: pol(any, rules(allow("true"), shadow(deny("true"))), either...), token: "jwt-reader", user: "ann", plan: "pro"},
		"shadow allow admits not":      {policy: pol(any, rules(need("x:y"), shadow(allow("true"))), either...), token: "jwt-reader", reason: policy.PermissionDenied},
		"only shadows stand for none":  {policy: pol(any, rules(shadow(need("x:y"))), either...), token: "jwt-reader", user: "ann", plan: "pro"},
		"plan in a rule":               {policy: pol(any, rules(allow(`auth.plan == "pro" && route.name == "r"`)), either...), token: "jwt-reader", user: "ann", plan: "pro"},
		"permission of nobody, public": {policy: pol(public, rules(need("*"))), reason: policy.PermissionDenied},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := policy.Compile(env, c.policy)
			if err != nil {
				t.Fatal(err)
			}
			r := policy.Request{Token: c.token, Key: c.key}
			r.Method = c.method
			if r.Method == "" {
				r.Method = "GET"
			}
			if c.tenants == nil {
				c.tenants = tenants
			}
			d := p.Decide(t.Context(), &r, c.tenants, creds())
			if d.Reason != c.reason || d.Allow != (c.reason == "") || d.Allow && d.Plan != c.plan {
				t.Fatalf("%+v", d)
			}
			if d.Allow && c.user != "" && d.Caller.User != c.user {
				t.Errorf("caller %+v", d.Caller)
			}
			if d.Reason != "" && d.Reason.Status() < 400 {
				t.Error(d.Reason.Status())
			}
		})
	}
}

func TestCompileRefuses(t *testing.T) {
	env, _ := celenv.New()
	const any = authzv1.Credentials_ANY_OF
	unnamed := pol(any, nil, key())
	unnamed.Name = ""
	homeless := pol(any, nil, key())
	homeless.Audiences = nil
	for want, p := range map[string]*authzv1.Policy{
		"has no name":                                 unnamed,
		"no audience":                                 homeless,
		"mode MODE_UNSPECIFIED is not":                pol(authzv1.Credentials_MODE_UNSPECIFIED, nil, key()),
		"mode 9 is not":                               pol(9, nil, key()),
		"nor with a credential":                       pol(any, nil),
		"yet with credentials":                        pol(authzv1.Credentials_PUBLIC, nil, key()),
		"names no issuer":                             pol(any, nil, jwt("")),
		"kind of credential is":                       pol(any, nil, &authzv1.Credential{}),
		"has no condition":                            pol(any, []*authzv1.Rule{{Id: "x"}}, key()),
		"is not resource:action":                      pol(any, []*authzv1.Rule{need("orders")}, key()),
		`rule 1 allow nope: 1:1: unknown word "nope"`: pol(any, []*authzv1.Rule{need("*"), allow("nope")}, key()),
	} {
		if _, err := policy.Compile(env, p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
}

func TestExpand(t *testing.T) {
	roles := policy.Roles{"admin": {"*"}, "clerk": {"orders:read", "orders:write"}}
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SliceOf(rapid.SampledFrom([]string{"admin", "clerk", "ghost", "a:b", "*", ""})).Draw(t, "in")
		for _, p := range roles.Expand(in) {
			if p != "*" && !strings.Contains(p, ":") {
				t.Fatalf("%q survived", p)
			}
		}
	})
}
