package config

import (
	"encoding/json"
	"slices"

	"tollgate/internal/strictyaml"
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
		header := string(or(k.Header, "x-api-key", itself))
		if slices.Contains([]string{"authorization", "cookie", "proxy-authorization"}, header) {
			b.fault(k.Header.Pos, "identity.api_keys.header", "%q carries other credentials: choose a header of its own, such as x-api-key", header)
		}
		b.apiKeys = true
		out.APIKeys = &APIKeys{Header: header, Store: k.Store.Path}
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
	if s.Issuer.IsSet() && s.Issuer.V == "" {
		b.fault(s.Issuer.Pos, path+".issuer", "is empty: write the `iss` of its tokens")
	}
	if s.Audiences != nil && (len(is.Audiences) == 0 || slices.Contains(is.Audiences, "")) {
		b.fault(s.Pos, path+".audiences", "is empty: a token for anybody would be taken; write the `aud` that this gateway answers to")
	}
	if len(is.Typ) == 0 {
		is.Typ = []string{"at+jwt", "JWT"}
	}
	if c := s.Claims; c != nil {
		is.TenantClaim = b.claim(&c.Tenant, path+".claims.tenant", is.TenantClaim)
		is.UserClaim = b.claim(&c.User, path+".claims.user", is.UserClaim)
		is.PermissionsClaim = b.claim(&c.Permissions, path+".claims.permissions", is.PermissionsClaim)
	}
	if s.JWKS != nil {
		is.JWKSURL = string(s.JWKS.URL.V)
		if f := s.JWKS.File; f != nil {
			is.JWKS = Content{Ref: f.Ref, Text: f.Text}
			b.keySet(f, path+".jwks")
		}
	}
	out.Issuers = append(out.Issuers, is)
}

func (b *builder) keySet(f *syntax.ContentFile, path string) {
	if f.Text == "" {
		return // faulty already
	}
	var set struct {
		Keys *[]json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal([]byte(f.Text), &set); err != nil || set.Keys == nil {
		b.fault(f.Pos, path, "%s is not a JSON Web Key Set: {\"keys\": […]}", f.Ref)
	}
}

func (b *builder) claim(c *syntax.Claim, path string, unset []string) []string {
	if !c.IsSet() {
		return unset
	}
	names := strs(c.Items)
	if len(names) == 0 || len(names) > 8 || slices.Contains(names, "") {
		b.fault(c.Pos, path, "must be the name of a claim, or a path of one to eight names")
		return unset
	}
	return names
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
		b.unknown(s.Plan.Pos, path+".plan", "plan", plan, b.names.plans)
	}
	g.Tenants = append(g.Tenants, Tenant{Pos: Pos(s.Pos), Name: name, Plan: plan})
}
