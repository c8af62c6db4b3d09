package config

import (
	"fmt"
	"slices"
	"strings"

	"tollgate/internal/strictyaml"
	"tollgate/xds/config/syntax"
)

func (b *builder) auth(r *syntax.Route, path string) Auth {
	s := r.Auth
	at := path + ".auth"
	switch {
	case s == nil:
		b.fault(r.Pos, path, "auth is missing: write `auth: public`, or name the credentials")
		return Auth{}
	case s.Public:
		return Auth{Mode: AuthPublic}
	case s.APIKey:
		return Auth{Mode: AuthAnyOf, Credentials: b.credentials(at, syntax.Credential{Pos: s.Pos, CredentialKind: s.CredentialKind})}
	case s.JWT.IsSet():
		return Auth{Mode: AuthAnyOf, Credentials: b.credentials(at, syntax.Credential{Pos: s.Pos, CredentialKind: s.CredentialKind})}
	}
	mode, list, key := AuthAnyOf, s.AnyOf, at+".any_of"
	if s.AllOf.IsSet() {
		mode, list, key = AuthAllOf, s.AllOf, at+".all_of"
	}
	if list.IsSet() && len(list.Items) == 0 {
		b.fault(list.Pos, key, "is empty: name a credential, or write `auth: public`")
	}
	auth := Auth{Mode: mode, Credentials: b.credentials(key, list.Items...)}
	if mode == AuthAllOf {
		b.together(auth.Credentials, list.Pos, key)
	}
	return auth
}

// together refuses what no request can carry at once.
func (b *builder) together(credentials []Credential, pos strictyaml.Pos, path string) {
	tokens := 0
	for _, c := range credentials {
		if c.JWT != "" {
			tokens++
		}
	}
	if tokens > 1 {
		b.fault(pos, path, "asks for %d tokens, but a request carries one: name one issuer", tokens)
	}
}

func (b *builder) credentials(path string, written ...syntax.Credential) []Credential {
	var out []Credential
	for _, c := range written {
		one := Credential{APIKey: c.APIKey, JWT: string(c.JWT.V)}
		if one.APIKey && !b.apiKeys {
			b.fault(c.Pos, path, "api_key needs identity.api_keys: write identity: {api_keys: {store: file:keys.yaml}}")
		}
		if _, known := b.issuers[one.JWT]; !known && one.JWT != "" {
			b.unknown(c.JWT, path+".jwt", "issuer", b.names.issuers)
		}
		if slices.Contains(out, one) && one != (Credential{}) {
			b.fault(c.Pos, path, "the same credential is there twice")
		}
		out = append(out, one)
	}
	return out
}

func (b *builder) rules(r *syntax.Route, auth Auth, path string) []Rule {
	written := r.Authorize
	if auth.Mode == AuthPublic && len(written.Items) > 0 {
		b.fault(written.Pos, path, "a public route has no caller to authorize: write `authorize: none` beside `auth: public`, or another auth")
	}
	if written.IsSet() && len(written.Items) == 0 && !written.None {
		b.fault(written.Pos, path, "is empty: write rules, or `authorize: none` for every authenticated caller")
	}
	var out []Rule
	admits, enforced := false, false
	for i := range written.Items {
		s := &written.Items[i]
		at := fmt.Sprintf("%s[%d]", path, i)
		rule := Rule{
			Pos: Pos(s.Pos), Permission: string(s.Permission.V), Allow: s.Allow.V, Deny: s.Deny.V,
			Methods: strs(s.Methods), Shadow: s.Enforce.IsSet() && !s.Enforce.V,
		}
		b.expression(&s.Allow, at+".allow")
		b.expression(&s.Deny, at+".deny")
		enforced = enforced || !rule.Shadow
		admits = admits || (!rule.Shadow && !s.Deny.IsSet())
		out = append(out, rule)
	}
	if enforced && !admits {
		b.fault(written.Pos, path, "has neither allow nor permission, so nobody would get in: add one, such as {allow: 'true'}")
	}
	return out
}

// anonymous warns of limits that count all callers of a public route as one.
func (b *builder) anonymous(r Route, path string) {
	if r.Auth.Mode != AuthPublic {
		return
	}
	for _, l := range r.RateLimit {
		for _, by := range l.By {
			if by == "tenant" || by == "user" || by == "credential" || strings.HasPrefix(by, "claim:") {
				b.warn(strictyaml.Pos(l.Pos), path+".rate_limit", "counts by %s, but a public route knows no caller: all share one counter; by: [ip] tells them apart", by)
			}
		}
	}
}

// expression compiles CEL as the authorization servers will.
func (b *builder) expression(s *syntax.Text, path string) {
	if !s.IsSet() {
		return
	}
	program, err := b.cel.Compile(s.V)
	switch {
	case err != nil && s.Ref != "":
		b.fault(s.Pos, path, "what %s stands for is not a valid expression", s.Ref)
	case err != nil:
		b.fault(s.Pos, path, "%v", err)
	default:
		for _, w := range program.Warnings() {
			b.warn(s.Pos, path, "%s", w)
		}
	}
}
