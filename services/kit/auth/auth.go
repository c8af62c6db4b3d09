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
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"tollgate/services/kit/fault"
)

const (
	issuer    = "tollgate"
	tokenType = "at+jwt"
	leeway    = 5 * time.Second
	maxToken  = 8 << 10
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
	parser    *jwt.Parser
}

type claims struct {
	jwt.RegisteredClaims
	Tenant      string   `json:"tenant"`
	Kind        string   `json:"kind"`
	Permissions []string `json:"permissions"`
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
	return &Verifier{audiences: cfg.Audiences, keys: keys, parser: jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
		jwt.WithIssuer(issuer), jwt.WithExpirationRequired(), jwt.WithLeeway(leeway), jwt.WithStrictDecoding(),
	)}, nil
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
	if len(token) > maxToken || strings.ContainsFunc(token, foreign) {
		return Caller{}, invalid(errors.New("longer than 8 KiB, or with characters that no token has"))
	}
	var c claims
	parsed, err := v.parser.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		if _, critical := t.Header["crit"]; critical || t.Header["typ"] != tokenType {
			return nil, errors.New("header has crit or is not of type " + tokenType)
		}
		kid, _ := t.Header["kid"].(string)
		return v.keys.find(ctx, kid)
	})
	if f, ok := errors.AsType[*fault.Fault](err); ok {
		return Caller{}, f
	}
	if errors.Is(err, jwt.ErrTokenExpired) {
		return Caller{}, fault.Unauthenticated("expired_token", "The identity has expired", err)
	}
	if err != nil || !parsed.Valid {
		return Caller{}, invalid(err)
	}
	if !slices.ContainsFunc(c.Audience, func(a string) bool { return slices.Contains(v.audiences, a) }) {
		return Caller{}, invalid(fmt.Errorf("audiences %q are not ours, %q", c.Audience, v.audiences))
	}
	if c.Tenant == "" || c.Tenant == "(none)" {
		return Caller{}, fault.Forbidden("unknown_tenant", "The identity belongs to no tenant")
	}
	return Caller{Tenant: c.Tenant, User: c.Subject, Kind: c.Kind, Permissions: c.Permissions}, nil
}

// foreign tells characters outside unpadded base64url and dots. The decoder
// would pass over line ends, and one token would have many spellings.
func foreign(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
}

func invalid(cause error) error {
	return fault.Unauthenticated("invalid_token", "The identity is not valid here", cause)
}
