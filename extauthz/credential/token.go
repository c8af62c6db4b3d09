package credential

import (
	"context"
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
	// Keys returns the current set and since when it is known to be current; ok is
	// false while none could be had.
	Keys(now time.Time) (set jwks.Set, since time.Time, ok bool)
	// Await asks for a set that is no older than the token's arrival and waits for
	// it, a moment at most and no longer than until one has the key. It reports
	// whether the set now is that new.
	Await(ctx context.Context, want Wanted) bool
}

// Wanted is the key of a token that the set at hand lacks.
type Wanted struct {
	KeyID   string
	Issued  time.Time // as the token says, which is not verified; zero: it does not
	Arrived time.Time
}

// issuedBefore reports whether the token says that it is older than a key set,
// so that its key should have been in it. A liar gets 401 for 503, or the other
// way round.
func (w Wanted) issuedBefore(since time.Time) bool {
	return !w.Issued.IsZero() && w.Issued.Add(clocksApart).Before(since)
}

// StaticKeys is a key set that came with the config.
type StaticKeys jwks.Set

// Keys returns the set, which is always current: another config brings others.
func (s StaticKeys) Keys(now time.Time) (jwks.Set, time.Time, bool) { return jwks.Set(s), now, true }

// Await has nothing to wait for.
func (s StaticKeys) Await(context.Context, Wanted) bool { return true }

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

// lookup finds the key a token names. current is false where a source that
// could have it may be out of date: then nobody can say yet that the token is bad.
func (i *Issuer) lookup(kid string, now time.Time) (key jwks.Key, found, current bool) {
	current = true
	for _, s := range i.sources {
		set, since, ok := s.Keys(now)
		current = current && ok && !since.Before(now)
		if key, found := set.Lookup(kid); ok && found {
			return key, true, true
		}
	}
	return jwks.Key{}, false, current
}

// weight is how much an issuer's refusal says, where several could have issued
// a token.
type weight int

const (
	notMine    weight = iota // another type, audience or form of times
	keyUnknown               // a newer key set may say more
	refused                  // by the issuer that has the key
	outlived                 // and the signature was good
)

// verify checks everything about a parsed token.
func (i *Issuer) verify(token string, sum [sha256.Size]byte, parsed *jwks.Token, now time.Time) (*policy.Caller, policy.Reason, weight) {
	if !i.typed(parsed.Typ) || !i.addressed(parsed.Claims["aud"]) {
		return nil, policy.InvalidToken, notMine
	}
	times, ok := readTimes(parsed.Claims)
	if longest := i.config.GetMaxLifetime().AsDuration(); !ok || longest > 0 && !times.within(longest, now) {
		return nil, policy.InvalidToken, notMine
	}
	key, found, current := i.lookup(parsed.KeyID, now)
	switch {
	case !found && !current:
		return nil, policy.IssuerUnavailable, keyUnknown
	case !found:
		return nil, policy.InvalidToken, keyUnknown
	}
	if parsed.Verify(key) != nil {
		return nil, policy.InvalidToken, refused
	}
	v := verified{key: key, notBefore: times.notBefore, expires: times.expires, caller: i.caller(token, parsed, times.expires)}
	if reason := v.at(now); reason != "" {
		return nil, reason, outlived
	}
	if v.caller.User == "" {
		return nil, policy.InvalidToken, refused
	}
	i.cache.Put(sum, v)
	return v.caller, "", outlived
}

// typed compares a token's typ with what is taken, as media types without case,
// where "application/" may be left out (RFC 7515 §4.1.9).
func (i *Issuer) typed(typ string) bool {
	short := func(t string) string { return strings.TrimPrefix(strings.ToLower(t), "application/") }
	return slices.ContainsFunc(i.config.GetTyp(), func(t string) bool { return short(t) == short(typ) })
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

type validity struct {
	issued, notBefore, expires time.Time // issued is zero where the token does not say
}

// within reports whether a token lives no longer than its issuer may say. Of
// one that does not say since when, what is left counts.
func (v validity) within(longest time.Duration, now time.Time) bool {
	if v.issued.IsZero() {
		return v.expires.Sub(now) <= longest
	}
	return v.expires.Sub(v.issued) <= longest
}

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
		if present && name == "iat" {
			out.issued = start
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
