package language

import (
	"tollgate/xds/config"
	"tollgate/xds/config/syntax"
)

func auth(s *syntax.Auth) config.Auth {
	switch {
	case s == nil:
		return config.Auth{}
	case s.Public:
		return config.Auth{Mode: config.AuthPublic}
	case s.AllOf.IsSet():
		return config.Auth{Mode: config.AuthAllOf, Credentials: credentials(s.AllOf.Items)}
	case s.AnyOf.IsSet():
		return config.Auth{Mode: config.AuthAnyOf, Credentials: credentials(s.AnyOf.Items)}
	default:
		return config.Auth{Mode: config.AuthAnyOf, Credentials: credentials([]syntax.Credential{{CredentialKind: s.CredentialKind}})}
	}
}

func credentials(written []syntax.Credential) []config.Credential {
	var out []config.Credential
	for _, c := range written {
		out = append(out, config.Credential{APIKey: c.APIKey, JWT: string(c.JWT.V)})
	}
	return out
}

func rules(written []syntax.Rule) []config.Rule {
	var out []config.Rule
	for i := range written {
		s := &written[i]
		out = append(out, config.Rule{
			Pos: config.Pos(s.Pos), Permission: string(s.Permission.V), Allow: s.Allow.V, Deny: s.Deny.V,
			Methods: strs(s.Methods), Shadow: s.Enforce.IsSet() && !s.Enforce.V,
		})
	}
	return out
}
