// Package check says what is wrong with the parts of a gateway file, once they
// have what they inherit: words that do not go together, and names that nothing
// has. Invariant: it only reads and reports; package config makes the model.
package check

import (
	"cmp"
	"crypto/tls"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tollgate/api/contract"
	"tollgate/internal/strictyaml"
	"tollgate/xds/config/syntax"
)

const (
	maxMessage = 512
	// maxRefill is the longest that the limiter counts back: a full burst.
	maxRefill = 100 * 24 * time.Hour
)

// Report takes a fault.
type Report func(pos strictyaml.Pos, path, format string, args ...any)

// pair checks that a key fits its certificate: Envoy would refuse it, long
// after the file was called valid.
func (c *Checker) pair(chain, key *syntax.Content, path string) {
	if chain.Text == "" || key.Text == "" {
		return // faulty already
	}
	if _, err := tls.X509KeyPair([]byte(chain.Text), []byte(key.Text)); err != nil {
		c.report(chain.Pos, path, "%s and %s are no certificate with its key: %v", chain.Ref, key.Ref, err)
	}
}

// listener checks one listener.
func (c *Checker) listener(s *syntax.Listener, path string) {
	if s.TLS != nil && s.Redirect.IsSet() {
		c.report(s.Redirect.Pos, path+".redirect", "this listener has tls itself: redirect belongs on a plain one")
	}
	if s.TLS != nil && s.Plaintext.V {
		c.report(s.Plaintext.Pos, path+".plaintext", "this listener has tls: remove plaintext")
	}
	if t := s.TrustedProxies; t != nil {
		for _, from := range t.From {
			if network := netip.Prefix(from.V); network.IsValid() && network.Bits() == 0 {
				c.warn(from.Pos, path+".trusted_proxies.from", "%s trusts everybody: any client may name any address as its own", network)
			}
		}
	}
	if s.TLS != nil {
		if s.TLS.Certs != nil && len(s.TLS.Certs) == 0 {
			c.report(s.TLS.Pos, path+".tls.certs", "is empty: name a certificate and its key")
		}
		for i := range s.TLS.Certs {
			c.pair(&s.TLS.Certs[i].Cert, &s.TLS.Certs[i].Key, path+".tls.certs")
		}
	}
}

// issuer checks one issuer.
func (c *Checker) issuer(s *syntax.Issuer, path string) {
	if s.Issuer.IsSet() && s.Issuer.V == "" {
		c.report(s.Issuer.Pos, path+".issuer", "is empty: write the `iss` of its tokens")
	}
	empty := func(t syntax.Text) bool { return t.V == "" }
	if s.Audiences != nil && (len(s.Audiences) == 0 || slices.ContainsFunc(s.Audiences, empty)) {
		c.report(s.Pos, path+".audiences", "is empty: a token for anybody would be taken; write the `aud` that this gateway answers to")
	}
	if claims := s.Claims; claims != nil {
		for _, claim := range []*syntax.Claim{&claims.Tenant, &claims.User, &claims.Permissions} {
			if claim.IsSet() && (len(claim.Items) == 0 || len(claim.Items) > 8 || slices.ContainsFunc(claim.Items, empty)) {
				c.report(claim.Pos, path+".claims", "must be the name of a claim, or a path of one to eight names")
			}
		}
	}
	if s.JWKS != nil && s.JWKS.File != nil && s.JWKS.File.Text != "" {
		var set struct {
			Keys *[]json.RawMessage `json:"keys"`
		}
		if err := json.Unmarshal([]byte(s.JWKS.File.Text), &set); err != nil || set.Keys == nil {
			c.report(s.JWKS.File.Pos, path+".jwks", "%s is not a JSON Web Key Set: {\"keys\": […]}", s.JWKS.File.Ref)
		}
	}
}

// keys checks where keys are sent.
func (c *Checker) keys(s *syntax.APIKeys) {
	if slices.Contains([]string{"authorization", "cookie", contract.HeaderProxyAuthorization}, string(s.Header.V)) {
		c.report(s.Header.Pos, "identity.api_keys.header", "%q carries other credentials: choose a header of its own, such as x-api-key", s.Header.V)
		return
	}
	name := string(s.Header.V)
	stripped := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
	if name != "" && (slices.Contains(contract.StrippedNames(), name) || slices.ContainsFunc(contract.StrippedPrefixes(), stripped)) {
		c.report(s.Header.Pos, "identity.api_keys.header", "%q is taken from every request before anything reads it, so no key could work: choose another, such as x-api-key", name)
	}
}

// limit checks one limit.
func (c *Checker) limit(s *syntax.Limit, path string) {
	if s.Burst.IsSet() && (s.Algorithm.V == "" || s.Algorithm.V == "fixed") {
		c.report(s.Burst.Pos, path+".burst", "fixed windows have no burst: write algorithm: gcra, or remove it")
	}
	if refill := float64(s.Per.V.Length) * float64(cmp.Or(s.Burst.V, s.Limit.V)) / max(float64(s.Limit.V), 1); s.Algorithm.V == "gcra" && refill > float64(maxRefill) {
		c.report(s.Algorithm.Pos, path, "a burst of %d takes more than 100 days to refill: choose a smaller burst, or a higher limit", cmp.Or(s.Burst.V, s.Limit.V))
	}
	c.rounded(s, path)
	if len(s.Message.V) > maxMessage {
		c.report(s.Message.Pos, path+".message", "has %d bytes, at most %d are sent", len(s.Message.V), maxMessage)
	}
	for i, by := range s.By {
		if slices.ContainsFunc(s.By[:i], func(o strictyaml.Value[syntax.By]) bool { return o.V == by.V }) && by.V != "" {
			c.report(by.Pos, path+".by", "%q is there twice", by.V)
		}
	}
}

// shared warns of a plan's limits that tenants use up for each other.
func (c *Checker) shared(limits []syntax.Limit, path string) {
	for i := range limits {
		by := limits[i].By
		tenant := func(o strictyaml.Value[syntax.By]) bool { return o.V == "tenant" }
		if len(by) > 0 && !slices.ContainsFunc(by, tenant) {
			c.warn(by[0].Pos, path+".by", "counts callers of different tenants as one where they have the same %s: add tenant, as in by: [tenant, %s]", by[0].V, by[0].V)
		}
	}
}

// rounded warns of a rate that comes out more than a hundredth too low: with gcra
// a request costs whole nanoseconds, rounded up.
func (c *Checker) rounded(s *syntax.Limit, path string) {
	window, limit := int64(s.Per.V.Length), int64(s.Limit.V)
	if s.Algorithm.V != "gcra" || window <= 0 || limit <= 0 {
		return
	}
	admits := window / ((window-1)/limit + 1)
	if admits < limit-limit/100 {
		c.warn(s.Limit.Pos, path+".limit", "%d in %s come out as %d: with gcra a request costs at least a nanosecond, and whole ones; write algorithm: fixed, or a smaller limit",
			limit, s.Per.V.Length, admits)
	}
}

// headerEdit checks that a header is not written and removed at once.
func (c *Checker) headerEdit(s *syntax.HeaderEdit, path string) {
	if s == nil || s.Off {
		return
	}
	c.headerNames(s.Set, path+".set")
	c.headerNames(s.Add, path+".add")
	for _, entry := range append(slices.Clone(s.Set.Items), s.Add.Items...) {
		name := strings.ToLower(entry.Key.V)
		for _, removed := range s.Remove {
			prefix, wild := strings.CutSuffix(string(removed.V), "*")
			if string(removed.V) == name || (wild && strings.HasPrefix(name, prefix)) {
				c.report(removed.Pos, path+".remove", "%q is written and removed: choose one", name)
			}
		}
	}
}

func (c *Checker) headerNames(m strictyaml.Map[strictyaml.Value[syntax.HeaderValue]], path string) {
	seen := map[string]bool{}
	for _, entry := range m.Items {
		var name syntax.HeaderName
		if err := name.UnmarshalText([]byte(entry.Key.V)); err != nil {
			c.report(entry.Key.Pos, path, "%v", err)
			continue
		}
		if seen[string(name)] {
			c.report(entry.Key.Pos, path, "%q is there twice: case never matters", name)
		}
		seen[string(name)] = true
	}
}
