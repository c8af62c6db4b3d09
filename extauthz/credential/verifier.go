// Package credential verifies what callers show, one kind a file: tokens and
// API keys. Invariant: a Caller exists only for a credential that was verified
// under the configuration of this moment, and no secret leaves the package.
package credential

import (
	"context"
	"crypto/sha256"
	"time"

	"tollgate/extauthz/policy"
	"tollgate/internal/jwks"
)

// clocksApart is how much an issuer's clock may differ from ours where only a
// status depends on it.
const clocksApart = 5 * time.Second

// Verifier is all that one configuration accepts. It is immutable but for its
// caches and safe for concurrent use.
type Verifier struct {
	issuers  map[string]*Issuer
	keys     *KeyIndex
	bulkhead *Bulkhead
}

// NewVerifier joins issuers, by name, and keys; nil keys are keys that could
// not be read yet. The bulkhead is that of the server, whatever its config.
func NewVerifier(issuers map[string]*Issuer, keys *KeyIndex, bulkhead *Bulkhead) *Verifier {
	return &Verifier{issuers: issuers, keys: keys, bulkhead: bulkhead}
}

// Token verifies a bearer token of one of the named issuers. One that was not
// seen yet waits for its turn, and is Overloaded if that does not come in time.
func (v *Verifier) Token(ctx context.Context, issuers []string, token string, now time.Time) (*policy.Caller, policy.Reason) {
	if len(token) > jwks.MaxToken {
		return nil, policy.InvalidToken
	}
	sum := digest(token)
	for _, name := range issuers {
		issuer, ok := v.issuers[name]
		if !ok {
			// The policy came before its issuer: the caller is not to blame.
			return nil, policy.PolicyNotReady
		}
		if caller, reason, hit := issuer.cached(sum, now); hit {
			return caller, reason
		}
	}
	if !v.bulkhead.enter(ctx) {
		return nil, policy.Overloaded
	}
	defer v.bulkhead.leave()
	parsed, err := jwks.ParseToken(token)
	if err != nil {
		return nil, policy.InvalidToken
	}
	// Of several issuers that it may come from, the one that knows most about the
	// token says why it does not count.
	reason, most := policy.InvalidToken, notMine
	for _, issuer := range v.from(issuers, parsed) {
		caller, why, weight := issuer.verify(token, sum, parsed, now)
		if why == "" {
			return caller, ""
		}
		if weight > most {
			reason, most = why, weight
		}
	}
	return nil, reason
}

// from are those of the named issuers that a token says it is from.
func (v *Verifier) from(issuers []string, parsed *jwks.Token) []*Issuer {
	var out []*Issuer
	for _, name := range issuers {
		if issuer := v.issuers[name]; issuer != nil && issuer.config.GetIssuer() != "" && parsed.Claims["iss"] == issuer.config.GetIssuer() {
			out = append(out, issuer)
		}
	}
	return out
}

// Await is for a token that Token found to be of IssuerUnavailable when it
// arrived: it waits, a moment at most, for key sets that may have its key, and
// returns "" where Token knows more now. Otherwise the token is bad if the sets
// are newer than it, and if that cannot be said it stays IssuerUnavailable.
func (v *Verifier) Await(ctx context.Context, issuers []string, token string, arrived time.Time) policy.Reason {
	parsed, err := jwks.ParseToken(token)
	if err != nil {
		return policy.InvalidToken
	}
	want := Wanted{KeyID: parsed.KeyID, Arrived: arrived}
	if issued, _, ok := date(parsed.Claims, "iat"); ok {
		want.Issued = issued
	}
	reason := policy.InvalidToken
	for _, issuer := range v.from(issuers, parsed) {
		for _, source := range issuer.sources {
			fresh := source.Await(ctx, want)
			set, since, ok := source.Keys(arrived)
			if _, found := set.Lookup(parsed.KeyID); found {
				return ""
			}
			if !fresh && (!ok || !want.issuedBefore(since)) {
				reason = policy.IssuerUnavailable
			}
		}
	}
	return reason
}

// Key verifies an API key.
func (v *Verifier) Key(key string, now time.Time) (*policy.Caller, policy.Reason) {
	if v.keys == nil {
		return nil, policy.PolicyNotReady
	}
	return v.keys.verify(key, now)
}

// digest hashes a text of the usual sizes without a copy on the heap.
func digest(text string) [sha256.Size]byte {
	var buffer [1024]byte
	return sha256.Sum256(append(buffer[:0], text...))
}
