package check

import (
	"strings"

	"tollgate/extauthz/policy"
	"tollgate/internal/clientrate"
)

// longestField bounds what a client may write into one field of our log.
const longestField = 256

// mostFailures is how many bad credentials of one client are looked at in a
// second. Whoever guesses keys needs more; people and their apps need fewer.
const mostFailures = 20

// guessing counts a bad credential and reports whether its client has shown too
// many in this second. Good credentials of the same address are never counted
// nor refused: an office behind one address does not pay for one of its own.
func (c *call) guessing(d *policy.Decision) bool {
	switch d.Reason {
	case policy.InvalidToken, policy.ExpiredToken, policy.UnknownKey, policy.RevokedKey, policy.ExpiredKey, policy.AmbiguousCredentials:
		count, _ := c.server.failures.Add(clientrate.Client(c.client), c.now)
		return count > mostFailures
	}
	return false
}

// logRefusal writes the denial record: who was refused what, where and why. Of
// a flood only a sample is written, and the rest counted; what is a fault of
// ours is always written. No field holds a secret.
func (c *call) logRefusal(d *policy.Decision, requestID string) {
	log := c.server.log
	// Whoever names a key that no issuer has, or forges tokens by the thousand, can
	// make us say 503.
	if d.Reason.Status() < 500 || d.Reason == policy.IssuerUnavailable || d.Reason == policy.Overloaded {
		take, past := c.server.denials.Take(clientrate.Client(c.client), c.now)
		if past.Left > 0 {
			log.Info("denials not logged", "component", "extauthz", "count", past.Left, "worst_client", past.Worst.String(), "worst_count", past.Count)
		}
		if !take {
			return
		}
	}
	caller := d.Caller
	if caller == nil {
		caller = &policy.Caller{}
	}
	log.Info("request refused", "component", "extauthz", "decision", "deny", "reason", string(d.Reason), "cause", c.why(d), "rule", d.Rule,
		"tenant", cut(caller.Tenant), "user", cut(caller.User), "credential", caller.Credential, "kind", caller.Kind,
		"client", c.client, "method", cut(c.http.GetMethod()), "host", cut(c.http.GetHost()), "resource", c.name, "request_id", cut(requestID))
}

// why tells the operator what the answer does not tell the client: what is
// wrong with a token, or what a caller would need. It is worked out for what is
// logged only.
func (c *call) why(d *policy.Decision) string {
	switch {
	case d.Reason == policy.InvalidToken:
		return c.snapshot.Credentials.Explain(c.policy.Issuers(), bearer(c.seen.authorization), c.now)
	case d.Reason == policy.PermissionDenied && d.Rule == "":
		return "none of these holds: " + cut(strings.Join(c.policy.Wanted(c.http.GetMethod()), ", "))
	}
	return ""
}

func cut(s string) string { return s[:min(len(s), longestField)] }
