// Package check says what is wrong with a block of a gateway file by itself,
// once it has what it inherits. Invariant: it only reads; names of other things
// and the model are for package config.
package check

import (
	"crypto/tls"
	"encoding/json"
	"slices"
	"strings"

	"tollgate/internal/strictyaml"
	"tollgate/xds/config/syntax"
)

const maxMessage = 512

// Report takes a fault.
type Report func(pos strictyaml.Pos, path, format string, args ...any)

// Pair checks that a key fits its certificate: Envoy would refuse it, long
// after the file was called valid.
func Pair(report Report, chain, key *syntax.Content, path string) {
	if chain.Text == "" || key.Text == "" {
		return // faulty already
	}
	if _, err := tls.X509KeyPair([]byte(chain.Text), []byte(key.Text)); err != nil {
		report(chain.Pos, path, "%s and %s are no certificate with its key: %v", chain.Ref, key.Ref, err)
	}
}

// Listener checks one listener.
func Listener(report Report, s *syntax.Listener, path string) {
	if s.TLS != nil && s.Redirect.IsSet() {
		report(s.Redirect.Pos, path+".redirect", "this listener has tls itself: redirect belongs on a plain one")
	}
	if s.TLS != nil && s.Plaintext.V {
		report(s.Plaintext.Pos, path+".plaintext", "this listener has tls: remove plaintext")
	}
	if s.TLS != nil {
		if s.TLS.Certs != nil && len(s.TLS.Certs) == 0 {
			report(s.TLS.Pos, path+".tls.certs", "is empty: name a certificate and its key")
		}
		for i := range s.TLS.Certs {
			Pair(report, &s.TLS.Certs[i].Cert, &s.TLS.Certs[i].Key, path+".tls.certs")
		}
	}
}

// Issuer checks one issuer.
func Issuer(report Report, s *syntax.Issuer, path string) {
	if s.Issuer.IsSet() && s.Issuer.V == "" {
		report(s.Issuer.Pos, path+".issuer", "is empty: write the `iss` of its tokens")
	}
	empty := func(t syntax.Text) bool { return t.V == "" }
	if s.Audiences != nil && (len(s.Audiences) == 0 || slices.ContainsFunc(s.Audiences, empty)) {
		report(s.Pos, path+".audiences", "is empty: a token for anybody would be taken; write the `aud` that this gateway answers to")
	}
	if c := s.Claims; c != nil {
		for _, claim := range []*syntax.Claim{&c.Tenant, &c.User, &c.Permissions} {
			if claim.IsSet() && (len(claim.Items) == 0 || len(claim.Items) > 8 || slices.ContainsFunc(claim.Items, empty)) {
				report(claim.Pos, path+".claims", "must be the name of a claim, or a path of one to eight names")
			}
		}
	}
	if s.JWKS != nil && s.JWKS.File != nil && s.JWKS.File.Text != "" {
		var set struct {
			Keys *[]json.RawMessage `json:"keys"`
		}
		if err := json.Unmarshal([]byte(s.JWKS.File.Text), &set); err != nil || set.Keys == nil {
			report(s.JWKS.File.Pos, path+".jwks", "%s is not a JSON Web Key Set: {\"keys\": […]}", s.JWKS.File.Ref)
		}
	}
}

// APIKeys checks where keys are sent.
func APIKeys(report Report, s *syntax.APIKeys) {
	if slices.Contains([]string{"authorization", "cookie", "proxy-authorization"}, string(s.Header.V)) {
		report(s.Header.Pos, "identity.api_keys.header", "%q carries other credentials: choose a header of its own, such as x-api-key", s.Header.V)
	}
}

// Limit checks one limit.
func Limit(report Report, s *syntax.Limit, path string) {
	if s.Burst.IsSet() && s.Algorithm.V != "gcra" {
		report(s.Burst.Pos, path+".burst", "fixed windows have no burst: write algorithm: gcra, or remove it")
	}
	if len(s.Message.V) > maxMessage {
		report(s.Message.Pos, path+".message", "has %d bytes, at most %d are sent", len(s.Message.V), maxMessage)
	}
	for i, by := range s.By {
		if slices.ContainsFunc(s.By[:i], func(o strictyaml.Value[syntax.By]) bool { return o.V == by.V }) && by.V != "" {
			report(by.Pos, path+".by", "%q is there twice", by.V)
		}
	}
}

// HeaderEdit checks that a header is not written and removed at once.
func HeaderEdit(report Report, s *syntax.HeaderEdit, path string) {
	if s == nil || s.Off {
		return
	}
	headerNames(report, s.Set, path+".set")
	headerNames(report, s.Add, path+".add")
	for _, entry := range append(slices.Clone(s.Set.Items), s.Add.Items...) {
		name := strings.ToLower(entry.Key.V)
		for _, removed := range s.Remove {
			prefix, wild := strings.CutSuffix(string(removed.V), "*")
			if string(removed.V) == name || (wild && strings.HasPrefix(name, prefix)) {
				report(removed.Pos, path+".remove", "%q is written and removed: choose one", name)
			}
		}
	}
}

func headerNames(report Report, m strictyaml.Map[strictyaml.Value[syntax.HeaderValue]], path string) {
	seen := map[string]bool{}
	for _, entry := range m.Items {
		var name syntax.HeaderName
		if err := name.UnmarshalText([]byte(entry.Key.V)); err != nil {
			report(entry.Key.Pos, path, "%v", err)
			continue
		}
		if seen[string(name)] {
			report(entry.Key.Pos, path, "%q is there twice: case never matters", name)
		}
		seen[string(name)] = true
	}
}
