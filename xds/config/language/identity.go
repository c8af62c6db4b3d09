package language

import (
	"time"

	"tollgate/api/contract"
	"tollgate/xds/config"
	"tollgate/xds/config/syntax"
)

func identity(s *syntax.Identity, out *config.Identity) {
	if s == nil {
		return
	}
	for i := range s.Issuers {
		out.Issuers = append(out.Issuers, issuer(&s.Issuers[i]))
	}
	if k := s.APIKeys; k != nil {
		out.APIKeys = &config.APIKeys{Header: string(or(k.Header, contract.HeaderKey, itself)), Store: k.Store.Path}
	}
	for _, role := range s.Roles.Items {
		if out.Roles == nil {
			out.Roles = map[string][]string{}
		}
		out.Roles[role.Key.V] = strs(role.Value)
	}
}

func issuer(s *syntax.Issuer) config.Issuer {
	is := config.Issuer{
		Pos: config.Pos(s.Pos), Name: string(s.Name.V), Issuer: s.Issuer.V, Audiences: strs(s.Audiences),
		Typ:         listed(strs(s.Typ), []string{"at+jwt", "JWT"}),
		MaxLifetime: or(s.MaxLifetime, 24*time.Hour, optional),
		TenantClaim: []string{"tenant"}, UserClaim: []string{"sub"}, PermissionsClaim: []string{"permissions"},
	}
	if c := s.Claims; c != nil {
		is.TenantClaim = listed(strs(c.Tenant.Items), is.TenantClaim)
		is.UserClaim = listed(strs(c.User.Items), is.UserClaim)
		is.PermissionsClaim = listed(strs(c.Permissions.Items), is.PermissionsClaim)
	}
	if s.JWKS != nil {
		is.JWKSURL = string(s.JWKS.URL.V)
		if f := s.JWKS.File; f != nil {
			is.JWKS = config.Content{Ref: f.Ref, Text: f.Text}
		}
	}
	return is
}
