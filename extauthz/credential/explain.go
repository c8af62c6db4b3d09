package credential

import (
	"time"

	"tollgate/internal/jwks"
)

// Explain says why a token is not valid, for the log of the operator: the same
// checks in the same order as Token, none of which it decides. It quotes
// nothing of the token.
func (v *Verifier) Explain(issuers []string, token string, now time.Time) string {
	parsed, err := jwks.ParseToken(token)
	if err != nil {
		return err.Error()
	}
	why := "issuer: no issuer of the route has its iss"
	for _, name := range issuers {
		if i, ok := v.issuers[name]; ok && parsed.Claims["iss"] == i.config.GetIssuer() {
			why = i.explain(parsed, now)
		}
	}
	return why
}

func (i *Issuer) explain(parsed *jwks.Token, now time.Time) string {
	name := i.config.GetName()
	if !i.typed(parsed.Typ) {
		return "typ: not one of issuer " + name
	}
	if !i.addressed(parsed.Claims["aud"]) {
		return "audience: for none of issuer " + name
	}
	times, ok := readTimes(parsed.Claims)
	if !ok {
		return "time: exp is missing, or exp, iat or nbf is no number of seconds"
	}
	if longest := i.config.GetMaxLifetime().AsDuration(); longest > 0 && !times.within(longest, now) {
		return "time: it lives longer than max_lifetime of issuer " + name
	}
	key, found, _ := i.lookup(parsed.KeyID, now)
	switch {
	case !found:
		return "signature: issuer " + name + " has no key of its kid"
	case parsed.Verify(key) != nil:
		return "signature: not of the key that it names, of issuer " + name
	case now.Add(Leeway).Before(times.notBefore):
		return "time: not valid yet, by iat or nbf"
	}
	return "user: it names nobody"
}
