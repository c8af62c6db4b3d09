// Package policy decides who may use a route: rules as data, one pure function.
// Invariant: a request is admitted only by a decision that Decide made on
// purpose; whatever is unknown, missing or fails refuses.
package policy

import (
	"fmt"
	"slices"
	"strings"

	authzv1 "tollgate/api/authz/v1"
	"tollgate/internal/celenv"
)

// Rule is one line of authorize, compiled.
type rule struct {
	id         string
	methods    []string
	deny       bool
	permission string          // set, or else
	when       *celenv.Program // this
	shadow     bool
}

// Policy is one route's policy, immutable.
type Policy struct {
	Name        string
	Route       string
	Audiences   []string
	Mirror      string // audience of the token of mirrored copies; "" for none
	Streams     bool   // requests may go on for longer than their credential
	Forward     bool
	LimitClaims []string
	Looks       celenv.Looks // of all its rules, shadows too

	mode    authzv1.Credentials_Mode
	issuers []string // accepted issuers, in order
	kinds   []kind   // of the credentials, in order
	rules   []rule
	judges  bool // some rule is enforced
}

type kind struct {
	jwt    bool
	issuer string
}

// Compile checks a policy as it came over the wire. Its error says which rule
// is wrong, since the control plane shows it to an operator.
func Compile(env *celenv.Env, p *authzv1.Policy) (*Policy, error) {
	out := &Policy{
		Name: p.GetName(), Route: p.GetRoute(), Audiences: p.GetAudiences(), Forward: p.GetForward(), Mirror: p.GetMirrorAudience(), Streams: p.GetStreams(),
		LimitClaims: p.GetLimitClaims(), mode: p.GetCredentials().GetMode(),
	}
	if out.Name == "" {
		return nil, fmt.Errorf("policy of route %q has no name: the control plane must send <route>@<hash>", out.Route)
	}
	if err := out.credentials(p.GetCredentials()); err != nil {
		return nil, fmt.Errorf("policy %s: %w", out.Name, err)
	}
	if out.mode != authzv1.Credentials_PUBLIC && len(out.Audiences) == 0 {
		return nil, fmt.Errorf("policy %s: no audience: the identity token needs the upstream's name", out.Name)
	}
	cost := uint64(0)
	for i, r := range p.GetRules() {
		compiled, err := compileRule(env, r)
		if err != nil {
			return nil, fmt.Errorf("policy %s: rule %d %s: %w", out.Name, i, r.GetId(), err)
		}
		out.judges = out.judges || !compiled.shadow
		out.rules = append(out.rules, compiled)
		if compiled.when != nil {
			cost += compiled.when.Cost()
			out.Looks = out.Looks.Join(compiled.when.Looks())
		}
	}
	if cost > celenv.MaxCost {
		return nil, fmt.Errorf("policy %s: its rules together may cost up to %d units, at most %d are allowed", out.Name, cost, celenv.MaxCost)
	}
	return out, nil
}

func (p *Policy) credentials(c *authzv1.Credentials) error {
	for _, one := range c.GetCredentials() {
		switch k := one.GetKind().(type) {
		case *authzv1.Credential_Jwt:
			if k.Jwt == "" {
				return fmt.Errorf("a jwt credential names no issuer")
			}
			p.kinds = append(p.kinds, kind{jwt: true, issuer: k.Jwt})
			p.issuers = append(p.issuers, k.Jwt)
		case *authzv1.Credential_ApiKey:
			p.kinds = append(p.kinds, kind{})
		default:
			return fmt.Errorf("a kind of credential is unknown here: update this authorization server")
		}
	}
	switch p.mode {
	case authzv1.Credentials_PUBLIC:
		if len(p.kinds) > 0 {
			return fmt.Errorf("public, yet with credentials")
		}
	case authzv1.Credentials_ANY_OF, authzv1.Credentials_ALL_OF:
		if len(p.kinds) == 0 {
			return fmt.Errorf("neither public nor with a credential")
		}
	default:
		return fmt.Errorf("mode %v is not one this authorization server knows", p.mode)
	}
	return nil
}

func compileRule(env *celenv.Env, r *authzv1.Rule) (rule, error) {
	out := rule{id: r.GetId(), methods: r.GetMethods(), shadow: r.GetShadow()}
	var err error
	switch c := r.GetCondition().(type) {
	case *authzv1.Rule_Permission:
		out.permission = c.Permission
		if resource, action, ok := strings.Cut(c.Permission, ":"); c.Permission != "*" && (!ok || resource == "" || action == "") {
			err = fmt.Errorf("permission %q is not resource:action", c.Permission)
		}
	case *authzv1.Rule_Allow:
		out.when, err = env.Compile(c.Allow)
	case *authzv1.Rule_Deny:
		out.deny = true
		out.when, err = env.Compile(c.Deny)
	default:
		err = fmt.Errorf("it has no condition")
	}
	return out, err
}

func (r *rule) applies(method string) bool {
	if len(r.methods) == 0 || slices.Contains(r.methods, method) {
		return true
	}
	return method == "HEAD" && slices.Contains(r.methods, "GET")
}

// Issuers are the names of the issuers whose tokens the policy takes.
func (p *Policy) Issuers() []string { return p.issuers }

// Takes reports which kinds of credential the policy takes, for the challenge.
func (p *Policy) Takes() (jwt, key bool) {
	for _, k := range p.kinds {
		jwt, key = jwt || k.jwt, key || !k.jwt
	}
	return jwt, key
}

// Tenants maps tenants to plans; "*" stands for every other one.
type Tenants map[string]string

// plan finds a tenant's plan; ok is false for a tenant that may not call.
func (t Tenants) plan(tenant string) (plan string, ok bool) {
	if tenant != "" && tenant != "*" {
		if plan, ok = t[tenant]; ok {
			return plan, true
		}
	}
	plan, ok = t["*"]
	return plan, ok
}

// Roles maps a role to its permissions.
type Roles map[string][]string

// Expand replaces roles by what they stand for. A permission of a caller
// without ":" that is not "*" is a role; one that nobody declared is dropped.
func (r Roles) Expand(permissions []string) []string {
	out := make([]string, 0, len(permissions))
	for _, p := range permissions {
		if p == "*" || strings.Contains(p, ":") {
			out = append(out, p)
			continue
		}
		out = append(out, r[p]...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
