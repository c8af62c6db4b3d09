// Package credential verifies what callers show, one kind a file: tokens and
// API keys. Invariant: a Caller exists only for a credential that was verified
// under the configuration of this moment, and no secret leaves the package.
package credential

import (
	"crypto/sha256"
	"time"

	"tollgate/extauthz/policy"
	"tollgate/internal/jwks"
)

// Verifier is all that one configuration accepts. It is immutable but for its
// caches and safe for concurrent use.
type Verifier struct {
	issuers map[string]*Issuer
	keys    *KeyIndex
}

// NewVerifier joins issuers, by name, and keys; nil keys are keys that could
// not be read yet.
func NewVerifier(issuers map[string]*Issuer, keys *KeyIndex) *Verifier {
	return &Verifier{issuers: issuers, keys: keys}
}

// Token verifies a bearer token of one of the named issuers.
func (v *Verifier) Token(issuers []string, token string, now time.Time) (*policy.Caller, policy.Reason) {
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
	parsed, err := jwks.ParseToken(token)
	if err != nil {
		return nil, policy.InvalidToken
	}
	reason := policy.InvalidToken
	for _, name := range issuers {
		issuer := v.issuers[name]
		if parsed.Claims["iss"] != issuer.config.GetIssuer() || issuer.config.GetIssuer() == "" {
			continue
		}
		var caller *policy.Caller
		if caller, reason = issuer.verify(token, sum, parsed, now); reason == "" {
			return caller, ""
		}
	}
	return nil, reason
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
