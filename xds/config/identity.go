package config

import (
	"tollgate/internal/strictyaml"
	"tollgate/xds/config/check"
	"tollgate/xds/config/syntax"
)

func (b *builder) identity(s *syntax.Identity, out *Identity) {
	if s == nil {
		return
	}
	for i := range s.Issuers {
		b.issuer(&s.Issuers[i], out)
	}
	if k := s.APIKeys; k != nil {
		if out.APIKeys != nil {
			b.fault(k.Pos, "identity.api_keys", "is written in two files: keep one")
		}
		check.APIKeys(b.fault, k)
		b.apiKeys = true
		out.APIKeys = &APIKeys{Header: string(or(k.Header, "x-api-key", itself)), Store: k.Store.Path}
	}
	for _, role := range s.Roles.Items {
		path := "identity.roles." + role.Key.V
		var name syntax.Name
		if err := name.UnmarshalText([]byte(role.Key.V)); err != nil {
			b.fault(role.Key.Pos, path, "a role %v", err)
			continue
		}
		if !b.unique(b.roles, role.Key.Pos, path, role.Key.V) {
			continue
		}
		if out.Roles == nil {
			out.Roles = map[string][]string{}
		}
		out.Roles[role.Key.V] = strs(role.Value)
	}
}

func (b *builder) issuer(s *syntax.Issuer, out *Identity) {
	name := string(s.Name.V)
	path := index("identity.issuers", name, len(out.Issuers))
	if b.unique(b.issuers, s.Name.Pos, path, name) {
		b.names.issuers = append(b.names.issuers, name)
	}
	is := Issuer{
		Pos: Pos(s.Pos), Name: name, Issuer: s.Issuer.V, Audiences: strs(s.Audiences), Typ: strs(s.Typ),
		TenantClaim: []string{"tenant"}, UserClaim: []string{"sub"}, PermissionsClaim: []string{"permissions"},
	}
	check.Issuer(b.fault, s, path)
	if len(is.Typ) == 0 {
		is.Typ = []string{"at+jwt", "JWT"}
	}
	if c := s.Claims; c != nil {
		is.TenantClaim = listed(strs(c.Tenant.Items), is.TenantClaim)
		is.UserClaim = listed(strs(c.User.Items), is.UserClaim)
		is.PermissionsClaim = listed(strs(c.Permissions.Items), is.PermissionsClaim)
	}
	if s.JWKS != nil {
		is.JWKSURL = string(s.JWKS.URL.V)
		if f := s.JWKS.File; f != nil {
			is.JWKS = Content{Ref: f.Ref, Text: f.Text}
		}
	}
	out.Issuers = append(out.Issuers, is)
}

func (b *builder) plan(s *syntax.Plan, g *Gateway) {
	name := string(s.Name.V)
	path := index("plans", name, len(g.Plans))
	if b.unique(b.plans, s.Name.Pos, path, name) {
		b.names.plans = append(b.names.plans, name)
	}
	p := Plan{Pos: Pos(s.Pos), Name: name, RateLimit: b.limits("plan/"+name, path+".rate_limit", s.RateLimit.Items, 0)}
	b.uniqueLimits(p.RateLimit, path+".rate_limit")
	g.Plans = append(g.Plans, p)
}

func (b *builder) tenant(s *syntax.Tenant, seen map[string]strictyaml.Pos, g *Gateway) {
	name := string(s.Name.V)
	path := index("tenants", name, len(g.Tenants))
	b.unique(seen, s.Name.Pos, path, name)
	plan := string(s.Plan.V)
	if _, known := b.plans[plan]; !known && plan != "" {
		b.unknown(s.Plan, path+".plan", "plan", b.names.plans)
	}
	g.Tenants = append(g.Tenants, Tenant{Pos: Pos(s.Pos), Name: name, Plan: plan})
}
