package credential

import (
	"crypto/sha256"
	"encoding/hex"
	"math"
	"slices"
	"strings"
	"time"

	authzv1 "tollgate/api/authz/v1"
	"tollgate/extauthz/policy"
	"tollgate/internal/celenv"
	"tollgate/internal/jwks"
)

const (
	// Leeway between an issuer's clock and ours, for iat and nbf; exp has none.
	Leeway = 30 * time.Second

	maxTokens = 50_000 // verified tokens kept for an issuer
)

// KeySource is where an issuer's keys come from at this moment.
type KeySource interface {
	// Keys returns the current set; ok is false while none could be had.
	Keys(now time.Time) (set jwks.Set, ok bool)
	// Miss reports that a token named a key that is not in the set. It never blocks.
	Miss()
}

// StaticKeys is a key set that came with the config.
type StaticKeys jwks.Set

// Keys returns the set.
func (s StaticKeys) Keys(time.Time) (jwks.Set, bool) { return jwks.Set(s), true }

// Miss has nothing to do: another config brings other keys.
func (s StaticKeys) Miss() {}

// Issuer verifies the tokens of one issuer under one configuration; another
// configuration is another Issuer with an empty cache, so that nothing verified
// under the old one counts under the new.
type Issuer struct {
	config  *authzv1.Issuer
	sources []KeySource
	roles   policy.Roles
	cache   *Cache[[sha256.Size]byte, verified]
}

type verified struct {
	caller    *policy.Caller
	key       jwks.Key
	notBefore time.Time
	expires   time.Time
}

// NewIssuer returns a verifier with the keys of all sources.
func NewIssuer(config *authzv1.Issuer, roles policy.Roles, sources ...KeySource) *Issuer {
	return &Issuer{config: config, sources: sources, roles: roles, cache: NewCache[[sha256.Size]byte, verified](maxTokens)}
}

// lookup finds the key a token names. known is false while a source that could
// have it was never read: then nobody can say that the token is bad.
func (i *Issuer) lookup(kid string, now time.Time) (key jwks.Key, found, known bool) {
	known = true
	for _, s := range i.sources {
		set, ok := s.Keys(now)
		known = known && ok
		if key, found := set.Lookup(kid); ok && found {
			return key, true, true
		}
	}
	return jwks.Key{}, false, known
}

// verify checks everything about a parsed token.
func (i *Issuer) verify(token string, sum [sha256.Size]byte, parsed *jwks.Token, now time.Time) (*policy.Caller, policy.Reason) {
	if !slices.ContainsFunc(i.config.GetTyp(), func(t string) bool { return strings.EqualFold(t, parsed.Typ) }) {
		return nil, policy.InvalidToken
	}
	if !i.addressed(parsed.Claims["aud"]) {
		return nil, policy.InvalidToken
	}
	times, ok := readTimes(parsed.Claims)
	if !ok {
		return nil, policy.InvalidToken
	}
	key, found, known := i.lookup(parsed.KeyID, now)
	switch {
	case !found && !known:
		return nil, policy.PolicyNotReady
	case !found:
		for _, s := range i.sources {
			s.Miss()
		}
		return nil, policy.InvalidToken
	}
	if parsed.Verify(key) != nil {
		return nil, policy.InvalidToken
	}
	v := verified{key: key, notBefore: times.notBefore, expires: times.expires, caller: i.caller(token, parsed, times.expires)}
	if reason := v.at(now); reason != "" {
		return nil, reason
	}
	if v.caller.User == "" {
		return nil, policy.InvalidToken
	}
	i.cache.Put(sum, v)
	return v.caller, ""
}

// cached returns the result of an earlier verification if it still holds: the
// token lives and its key is still published.
func (i *Issuer) cached(sum [sha256.Size]byte, now time.Time) (*policy.Caller, policy.Reason, bool) {
	v, ok := i.cache.Get(sum)
	if !ok {
		return nil, "", false
	}
	key, found, _ := i.lookup(v.key.ID, now)
	if !found || !key.Equal(v.key) {
		i.cache.Delete(sum)
		return nil, "", false
	}
	if reason := v.at(now); reason != "" {
		i.cache.Delete(sum)
		return nil, reason, true
	}
	return v.caller, "", true
}

func (v *verified) at(now time.Time) policy.Reason {
	if !now.Before(v.expires) {
		return policy.ExpiredToken
	}
	if now.Add(Leeway).Before(v.notBefore) {
		return policy.InvalidToken
	}
	return ""
}

func (i *Issuer) addressed(aud any) bool {
	switch a := aud.(type) {
	case string:
		return slices.Contains(i.config.GetAudiences(), a)
	case []any:
		named := false
		for _, one := range a {
			text, ok := one.(string)
			if !ok {
				return false
			}
			named = named || slices.Contains(i.config.GetAudiences(), text)
		}
		return named
	}
	return false
}

type validity struct{ notBefore, expires time.Time }

// readTimes needs exp; iat and nbf, where present, both bound the start.
func readTimes(claims map[string]any) (validity, bool) {
	exp, present, ok := date(claims, "exp")
	if !ok || !present {
		return validity{}, false
	}
	out := validity{expires: exp}
	for _, name := range []string{"iat", "nbf"} {
		start, present, ok := date(claims, name)
		if !ok {
			return validity{}, false
		}
		if present && start.After(out.notBefore) {
			out.notBefore = start
		}
	}
	return out, true
}

func date(claims map[string]any, name string) (at time.Time, present, ok bool) {
	v, present := claims[name]
	if !present {
		return time.Time{}, false, true
	}
	seconds, isNumber := v.(float64)
	if !isNumber || seconds < 0 || seconds > 253402300799 || math.IsNaN(seconds) {
		return time.Time{}, true, false
	}
	whole, part := math.Modf(seconds)
	return time.Unix(int64(whole), int64(part*1e9)), true, true
}

func (i *Issuer) caller(token string, parsed *jwks.Token, expires time.Time) *policy.Caller {
	permissions := i.roles.Expand(words(claim(parsed.Claims, i.config.GetPermissionsClaim())))
	return &policy.Caller{
		Kind:        policy.KindJWT,
		Tenant:      text(claim(parsed.Claims, i.config.GetTenantClaim())),
		User:        text(claim(parsed.Claims, i.config.GetUserClaim())),
		Credential:  tokenID(token, parsed.Claims),
		Permissions: permissions,
		Scopes:      words(parsed.Claims["scope"]),
		Claims:      parsed.Claims,
		Grants:      celenv.NewGrants(permissions),
		Expires:     expires,
	}
}

// tokenID names a token where a limit counts by credential or a log tells it apart.
func tokenID(token string, claims map[string]any) string {
	if id := text(claims["jti"]); id != "" && len(id) <= 128 {
		return id
	}
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:8])
}

func claim(claims map[string]any, path []string) any {
	var at any = claims
	if len(path) == 0 {
		return nil
	}
	for _, name := range path {
		fields, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = fields[name]
	}
	return at
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

// words reads a list: an array of strings, or one string with spaces.
func words(v any) []string {
	switch list := v.(type) {
	case string:
		return strings.Fields(list)
	case []any:
		out := make([]string, 0, len(list))
		for _, one := range list {
			if s, ok := one.(string); ok {
				out = append(out, s)
			}
		}
		return out
	}
	return nil
}
