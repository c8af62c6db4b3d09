// Package auth verifies the identity that the gateway passes to services, the
// x-auth-token, once more. Invariants: a caller is known only through a
// signature made for one of this service's audiences and has a tenant; when
// the keys to check it cannot be had the answer is "unavailable", never a guess.
package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"tollgate/api/contract"
	"tollgate/internal/identity"
	"tollgate/internal/jwks"
	"tollgate/services/kit/fault"
)

// Caller is whom a request is made for.
type Caller struct {
	Tenant, User, Kind string
	Permissions        []string
}

// Config says whose tokens to accept.
type Config struct {
	JWKS      string   // a file, or an https URL (http on loopback only)
	Audiences []string // a token must name one of them
	Log       *slog.Logger
}

// Verifier names the callers of tokens.
type Verifier struct {
	audiences []string
	keys      *keyring
}

type callerKey struct{}

type verified struct {
	Caller
	token string
}

// New checks the configuration. The keys need not be there yet.
func New(cfg Config) (*Verifier, error) {
	if len(cfg.Audiences) == 0 || slices.Contains(cfg.Audiences, "") {
		return nil, errors.New("audiences: name at least one, the upstream that leads to this service")
	}
	keys, err := newKeyring(cfg.JWKS, cfg.Log)
	if err != nil {
		return nil, err
	}
	return &Verifier{audiences: cfg.Audiences, keys: keys}, nil
}

// Run keeps the keys fresh until ctx ends.
func (v *Verifier) Run(ctx context.Context) error { return v.keys.run(ctx) }

// Authenticate returns a context that carries the caller of the token, or a
// fault.
func (v *Verifier) Authenticate(ctx context.Context, token string) (context.Context, error) {
	caller, err := v.verify(ctx, token)
	if err != nil {
		return nil, err
	}
	return context.WithValue(ctx, callerKey{}, verified{caller, token}), nil
}

// From returns the caller in ctx; without one, a caller of no tenant.
func From(ctx context.Context) Caller {
	v, _ := ctx.Value(callerKey{}).(verified)
	return v.Caller
}

// Token returns the caller's token, for calls to peers made on its behalf.
func Token(ctx context.Context) string {
	v, _ := ctx.Value(callerKey{}).(verified)
	return v.token
}

func (v *Verifier) verify(ctx context.Context, token string) (Caller, error) {
	parsed, err := jwks.ParseToken(token)
	if err != nil {
		return Caller{}, invalid(err)
	}
	keys, err := v.keys.with(ctx, parsed.KeyID)
	if err != nil {
		return Caller{}, err
	}
	verifier, err := identity.NewVerifier(keys, v.audience(parsed))
	if err != nil {
		return Caller{}, invalid(err)
	}
	now := time.Now()
	c, err := verifier.Verify(token, now)
	if err != nil {
		if old, good := expired(verifier, parsed, token, now); good {
			return Caller{}, fault.Unauthenticated("expired_token", "The identity has expired", old)
		}
		return Caller{}, invalid(err)
	}
	if c.Tenant == "" || c.Tenant == contract.None {
		return Caller{}, fault.Forbidden("unknown_tenant", "The identity belongs to no tenant")
	}
	return Caller{Tenant: c.Tenant, User: c.Subject, Kind: c.Kind, Permissions: c.Permissions}, nil
}

// audience picks the name of ours that the token claims to be for. The claim
// is not verified yet; the verifier holds the token to it.
func (v *Verifier) audience(token *jwks.Token) string {
	named, _ := token.Claims["aud"].([]any)
	for _, a := range v.audiences {
		if slices.Contains(named, any(a)) {
			return a
		}
	}
	return v.audiences[0]
}

// expired reports whether age is all that is wrong with a token, so that a
// forged one does not pass for an old one.
func expired(v *identity.Verifier, parsed *jwks.Token, token string, now time.Time) (error, bool) {
	exp, _ := parsed.Claims["exp"].(float64)
	ended := time.Unix(int64(exp), 0)
	if now.Before(ended) {
		return nil, false
	}
	_, err := v.Verify(token, ended.Add(-time.Second))
	return fmt.Errorf("expired at %s", ended.UTC().Format(time.RFC3339)), err == nil
}

func invalid(cause error) error {
	return fault.Unauthenticated("invalid_token", "The identity is not valid here", cause)
}
