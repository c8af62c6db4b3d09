package policy

import (
	"context"
	"time"

	authzv1 "tollgate/api/authz/v1"
	"tollgate/internal/celenv"
)

// The kinds of caller.
const (
	KindJWT    = "jwt"
	KindAPIKey = "api_key"
)

// Reason is why a request is refused, a word of the error envelope; "" is none.
type Reason string

// The reasons.
const (
	MissingCredential    Reason = "missing_credential"
	AmbiguousCredentials Reason = "ambiguous_credentials"
	InvalidToken         Reason = "invalid_token"
	ExpiredToken         Reason = "expired_token"
	UnknownKey           Reason = "unknown_key"
	RevokedKey           Reason = "revoked_key"
	ExpiredKey           Reason = "expired_key"
	UnknownTenant        Reason = "unknown_tenant"
	PermissionDenied     Reason = "permission_denied"
	RuleError            Reason = "rule_error"
	PolicyNotReady       Reason = "policy_not_ready"
	IssuerUnavailable    Reason = "issuer_unavailable"
	Overloaded           Reason = "authz_overloaded"
	BadRequest           Reason = "bad_request"
	TooManyFailures      Reason = "too_many_failures" // of one client: the next bad credentials
)

// The statuses of HTTP that a refusal can have.
const (
	badRequest   = 400
	unauthorized = 401
	forbidden    = 403
	tooMany      = 429
	unavailable  = 503
)

// Status is the HTTP status of a refusal. A reason it does not know is a
// fault of ours, never of the caller.
func (r Reason) Status() int {
	switch r {
	case MissingCredential, AmbiguousCredentials, InvalidToken, ExpiredToken, UnknownKey, RevokedKey, ExpiredKey:
		return unauthorized
	case UnknownTenant, PermissionDenied, RuleError:
		return forbidden
	case BadRequest:
		return badRequest
	case TooManyFailures:
		return tooMany
	}
	return unavailable
}

// Caller is whom a verified credential names. It is immutable and shared by
// all requests with that credential.
type Caller struct {
	Kind, Tenant, User  string
	Credential          string   // id for limits and logs, never the secret
	KeyID               string   // of an API key
	Permissions, Scopes []string // permissions with roles expanded
	Claims              map[string]any
	Grants              *celenv.Grants
	Expires             time.Time // of the credential; zero: never
}

// Credentials verifies what a request carries.
type Credentials interface {
	// Token verifies a bearer token of one of the issuers, or says by the end of
	// ctx that it is Overloaded.
	Token(ctx context.Context, issuers []string, token string, now time.Time) (*Caller, Reason)
	// Key verifies an API key.
	Key(key string, now time.Time) (*Caller, Reason)
}

// Request is what is decided.
type Request struct {
	celenv.Request
	Token, Key string // as sent; "" when absent
}

// Shadow is what a rule with `enforce: false` would have done.
type Shadow struct {
	Rule   string
	Result string // allow, deny, pass or error
}

// Decision is what becomes of a request, and which rule made it so.
type Decision struct {
	Allow   bool
	Reason  Reason // "" exactly when Allow
	Rule    string // that decided; "" when none had to
	Caller  *Caller
	Plan    string
	Shadows []Shadow
	// Until is when the first of the credentials ends; zero: none does.
	Until time.Time
}

// Decide is pure: the time is in the request, credentials are verified by a
// function of their bytes, the time and the current keys. Rules that are still
// running when ctx ends have failed.
func (p *Policy) Decide(ctx context.Context, r *Request, tenants Tenants, credentials Credentials) Decision {
	caller, until, reason := p.authenticate(ctx, r, credentials)
	if reason != "" {
		return Decision{Reason: reason, Caller: caller}
	}
	d := Decision{Caller: caller, Until: until}
	if caller != nil {
		plan, ok := tenants.plan(caller.Tenant)
		if !ok {
			d.Reason = UnknownTenant
			return d
		}
		if caller.Tenant != "" {
			d.Plan = plan
		}
	}
	p.authorize(ctx, r, &d)
	return d
}

func (p *Policy) authenticate(ctx context.Context, r *Request, credentials Credentials) (caller *Caller, until time.Time, reason Reason) {
	switch p.mode {
	case authzv1.Credentials_PUBLIC:
		return nil, until, ""
	case authzv1.Credentials_ANY_OF:
		if caller, reason = p.anyOf(ctx, r, credentials); caller != nil {
			until = caller.Expires
		}
		return caller, until, reason
	case authzv1.Credentials_ALL_OF:
		return p.allOf(ctx, r, credentials)
	}
	return nil, until, PolicyNotReady
}

// anyOf: the one kind that the request carries decides. Trying the next kind
// after a bad one would let a thief of half a pair choose what is looked at.
func (p *Policy) anyOf(ctx context.Context, r *Request, credentials Credentials) (*Caller, Reason) {
	jwt, key := p.Takes()
	switch {
	case r.Token != "" && r.Key != "":
		return nil, AmbiguousCredentials
	case r.Token != "" && jwt:
		return credentials.Token(ctx, p.issuers, r.Token, r.Time)
	case r.Key != "" && key:
		return credentials.Key(r.Key, r.Time)
	}
	return nil, MissingCredential
}

// allOf: every one must be good, the first names the caller.
func (p *Policy) allOf(ctx context.Context, r *Request, credentials Credentials) (first *Caller, until time.Time, _ Reason) {
	for _, k := range p.kinds {
		var caller *Caller
		reason := MissingCredential
		if k.jwt && r.Token != "" {
			caller, reason = credentials.Token(ctx, []string{k.issuer}, r.Token, r.Time)
		} else if !k.jwt && r.Key != "" {
			caller, reason = credentials.Key(r.Key, r.Time)
		}
		if reason != "" {
			return nil, time.Time{}, reason
		}
		if first == nil {
			first = caller
		}
		if end := caller.Expires; !end.IsZero() && (until.IsZero() || end.Before(until)) {
			until = end
		}
	}
	return first, until, ""
}

// authorize: deny beats allow, an error never admits, nothing said is no. Rules
// that are all shadows stand for no list at all.
func (p *Policy) authorize(ctx context.Context, r *Request, d *Decision) {
	var in *celenv.Input
	admitted, failed := "", ""
	for i := range p.rules {
		rule := &p.rules[i]
		if !rule.applies(r.Method) || admitted != "" && !rule.deny && !rule.shadow {
			continue
		}
		if rule.when != nil && in == nil {
			in = p.input(r, d)
		}
		held, err := rule.holds(ctx, in, d.Caller)
		switch {
		case rule.shadow:
			d.Shadows = append(d.Shadows, Shadow{Rule: rule.id, Result: rule.result(held, err)})
		case rule.deny && err != nil:
			d.Allow, d.Reason, d.Rule = false, RuleError, rule.id
			return
		case rule.deny && held:
			d.Allow, d.Reason, d.Rule = false, PermissionDenied, rule.id
			return
		case err != nil:
			failed = rule.id
		case held && !rule.deny:
			admitted = rule.id
		}
	}
	switch {
	case admitted != "", !p.judges:
		d.Allow, d.Rule = true, admitted
	case failed != "":
		d.Reason, d.Rule = RuleError, failed
	default:
		d.Reason = PermissionDenied
	}
}

func (r *rule) holds(ctx context.Context, in *celenv.Input, caller *Caller) (bool, error) {
	if r.when != nil {
		return r.when.Eval(ctx, in)
	}
	return caller != nil && caller.Grants.Can(r.permission), nil
}

func (r *rule) result(held bool, err error) string {
	switch {
	case err != nil:
		return "error"
	case !held:
		return "pass"
	case r.deny:
		return "deny"
	}
	return "allow"
}

func (p *Policy) input(r *Request, d *Decision) *celenv.Input {
	var whole struct { // one allocation for both
		in   celenv.Input
		auth celenv.Auth
	}
	auth := &whole.auth
	auth.Plan = d.Plan
	if c := d.Caller; c != nil {
		auth.Kind, auth.Tenant, auth.User, auth.KeyID = c.Kind, c.Tenant, c.User, c.KeyID
		auth.Permissions, auth.Scopes, auth.Claims, auth.Grants = c.Permissions, c.Scopes, c.Claims, c.Grants
	} else {
		auth.Grants = &celenv.Grants{}
	}
	whole.in = celenv.Input{Request: r.Request, Auth: auth, Route: p.Route}
	return &whole.in
}
