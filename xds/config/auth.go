package config

import (
	"tollgate/xds/config/syntax"
)

func auth(s *syntax.Auth) Auth {
	switch {
	case s == nil:
		return Auth{}
	case s.Public:
		return Auth{Mode: AuthPublic}
	case s.AllOf.IsSet():
		return Auth{Mode: AuthAllOf, Credentials: credentials(s.AllOf.Items)}
	case s.AnyOf.IsSet():
		return Auth{Mode: AuthAnyOf, Credentials: credentials(s.AnyOf.Items)}
	default:
		return Auth{Mode: AuthAnyOf, Credentials: credentials([]syntax.Credential{{CredentialKind: s.CredentialKind}})}
	}
}

func credentials(written []syntax.Credential) []Credential {
	var out []Credential
	for _, c := range written {
		out = append(out, Credential{APIKey: c.APIKey, JWT: string(c.JWT.V)})
	}
	return out
}

func rules(written []syntax.Rule) []Rule {
	var out []Rule
	for i := range written {
		s := &written[i]
		out = append(out, Rule{
			Pos: Pos(s.Pos), Permission: string(s.Permission.V), Allow: s.Allow.V, Deny: s.Deny.V,
			Methods: strs(s.Methods), Shadow: s.Enforce.IsSet() && !s.Enforce.V,
		})
	}
	return out
}
