// Package compile turns a valid gateway into the resources that proxies,
// authorization servers and limiters are sent. It is a pure function: same
// Gateway, same Scope, same bytes; it reads no clock, file or environment and
// cannot fail, because language.Parse lets nothing through that it could not compile.
package compile

import (
	"net/netip"

	"tollgate/xds/compile/shard"
)

// Scope is what the gateway file does not say: where our own servers are and
// which addresses are free. Same Gateway and Scope, same bytes.
type Scope struct {
	ExtAuthz    []string                  // host:port of the authorization servers
	RateLimit   []string                  // host:port of the limiters
	TrustDomain string                    // of these two's certificates; "": they speak plain text
	Listeners   map[string]netip.AddrPort // addresses that replace the file's (--free-ports, port 0)
	// Parts lets many routes be parted. Nobody sets it yet: a listener that leaves a
	// form and comes back to it within a minute may wait for its scopes for ever.
	Parts bool
	// Form is how the routes of every listener are parted, in a test that all
	// forms are equal; nil leaves it to how many routes there are.
	Form *shard.Form
}
