package check

import (
	"strconv"

	"tollgate/extauthz/policy"
)

// message is what a client reads: what to do, nothing about why we think so.
func message(reason policy.Reason) string {
	switch reason {
	case policy.MissingCredential:
		return "A credential is required"
	case policy.AmbiguousCredentials:
		return "Send one kind of credential, not two"
	case policy.InvalidToken:
		return "The token is not valid"
	case policy.ExpiredToken:
		return "The token is expired"
	case policy.IssuerUnavailable:
		return "The keys of the token's issuer cannot be had now, try again"
	case policy.Overloaded:
		return "Too many new tokens at once, try again"
	case policy.UnknownKey:
		return "The API key is not known"
	case policy.RevokedKey:
		return "The API key is revoked"
	case policy.ExpiredKey:
		return "The API key is expired"
	case policy.UnknownTenant:
		return "The tenant of this credential is not known here"
	case policy.TooManyFailures:
		return "Too many bad credentials from this address, slow down"
	case policy.PermissionDenied, policy.RuleError:
		return "This caller may not do that"
	}
	return notReady
}

// claimText renders a claim for a limit to count by; only scalars have one text.
func claimText(v any) string {
	switch c := v.(type) {
	case string:
		return c
	case bool:
		return strconv.FormatBool(c)
	case float64:
		return strconv.FormatFloat(c, 'f', -1, 64)
	}
	return ""
}
