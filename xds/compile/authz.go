package compile

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"strings"

	authzv1 "tollgate/api/authz/v1"
	"tollgate/xds/compile/bounds"
	"tollgate/xds/compile/field"
	"tollgate/xds/compile/matching"
	"tollgate/xds/config"
)

// policy says who may use a route. Its name carries a hash of all it says, so
// that a route and its policy can never be of different editions.
func (b *builder) policy(r *config.Route) *authzv1.Policy {
	p := &authzv1.Policy{
		Route: r.Name, Forward: r.Forward, Audiences: b.audiences(r.Upstream), LimitClaims: b.limitClaims(r),
		Credentials: &authzv1.Credentials{Mode: authzv1.Credentials_ANY_OF},
	}
	if r.Mirror != nil {
		p.MirrorAudience = r.Mirror.Upstream
	}
	p.Streams = bounds.Streams(r, b.upstreams)
	if r.Auth.Mode == config.AuthAllOf {
		p.Credentials.Mode = authzv1.Credentials_ALL_OF
	}
	for _, c := range r.Auth.Credentials {
		credential := &authzv1.Credential{Kind: &authzv1.Credential_Jwt{Jwt: c.JWT}}
		if c.APIKey {
			credential.Kind = &authzv1.Credential_ApiKey{ApiKey: &authzv1.ApiKey{}}
		}
		p.Credentials.Credentials = append(p.Credentials.Credentials, credential)
	}
	for i := range r.Authorize {
		p.Rules = append(p.Rules, rule(i, &r.Authorize[i]))
	}
	p.Name = r.Name + "@" + digest(p)
	return p
}

func rule(i int, r *config.Rule) *authzv1.Rule {
	out := &authzv1.Rule{Id: "authorize[" + strconv.Itoa(i) + "]", Methods: matching.WithHead(r.Methods), Shadow: r.Shadow}
	switch {
	case r.Permission != "":
		out.Condition = &authzv1.Rule_Permission{Permission: r.Permission}
	case r.Allow != "":
		out.Condition = &authzv1.Rule_Allow{Allow: r.Allow}
	default:
		out.Condition = &authzv1.Rule_Deny{Deny: r.Deny}
	}
	return out
}

// digest hashes what a policy says, field by field: the bytes of a proto are
// not the same in every build.
func digest(p *authzv1.Policy) string {
	text := join(nil, "policy/1", p.GetRoute(), p.GetCredentials().GetMode().String(), strconv.FormatBool(p.GetForward()))
	for _, c := range p.GetCredentials().GetCredentials() {
		text = join(text, "credential", strconv.FormatBool(c.GetApiKey() != nil), c.GetJwt())
	}
	for _, r := range p.GetRules() {
		text = join(text, "rule", r.GetId(), r.GetPermission(), r.GetAllow(), r.GetDeny(), strconv.FormatBool(r.GetShadow()))
		text = join(text, r.GetMethods()...)
	}
	text = join(text, "audiences")
	text = join(text, p.GetAudiences()...)
	text = join(text, "claims")
	text = join(text, p.GetLimitClaims()...)
	text = join(text, "mirror", p.GetMirrorAudience(), "streams", strconv.FormatBool(p.GetStreams()))
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// join is injective: every list and every text is preceded by its length.
func join(to []byte, texts ...string) []byte {
	to = append(strconv.AppendInt(to, int64(len(texts)), 10), ':')
	for _, t := range texts {
		to = append(strconv.AppendInt(to, int64(len(t)), 10), ':')
		to = append(to, t...)
	}
	return to
}

// audiences are those of the identity token: the upstream, of a split all
// members too.
func (b *builder) audiences(name string) []string {
	u := b.upstreams[name]
	if u == nil {
		return nil
	}
	out := []string{name}
	for _, m := range u.Split {
		out = append(out, m.Upstream)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// limitClaims are the claims by which a limit of the route counts.
func (b *builder) limitClaims(r *config.Route) []string {
	claims := map[string]bool{}
	for _, c := range b.sharedClaims {
		claims[c] = true
	}
	for _, c := range claimsOf(r.RateLimit) {
		claims[c] = true
	}
	if len(claims) == 0 || r.Upstream == "" {
		return nil
	}
	return slices.Sorted(maps.Keys(claims))
}

func claimsOf(limits []config.Limit) []string {
	var out []string
	for i := range limits {
		for _, word := range limits[i].By {
			if name, ok := strings.CutPrefix(word, "claim:"); ok {
				out = append(out, name)
			}
		}
	}
	return out
}

// identity is what all policies share.
func identity(gw *config.Gateway) *authzv1.Identity {
	out := &authzv1.Identity{Roles: map[string]*authzv1.Permissions{}, Tenants: map[string]string{}}
	for i := range gw.Identity.Issuers {
		in := &gw.Identity.Issuers[i]
		issuer := &authzv1.Issuer{
			Name: in.Name, Issuer: in.Issuer, Audiences: in.Audiences, Typ: in.Typ,
			TenantClaim: in.TenantClaim, UserClaim: in.UserClaim, PermissionsClaim: in.PermissionsClaim,
			Jwks: &authzv1.Issuer_JwksInline{JwksInline: in.JWKS.Text},
		}
		if in.MaxLifetime > 0 {
			issuer.MaxLifetime = field.Duration(in.MaxLifetime)
		}
		if in.JWKSURL != "" {
			issuer.Jwks = &authzv1.Issuer_JwksUrl{JwksUrl: in.JWKSURL}
		}
		out.Issuers = append(out.Issuers, issuer)
	}
	if keys := gw.Identity.APIKeys; keys != nil {
		out.ApiKeys = &authzv1.ApiKeys{Header: keys.Header, Store: keys.Store}
	}
	for role, permissions := range gw.Identity.Roles {
		out.Roles[role] = &authzv1.Permissions{Permissions: permissions}
	}
	for i := range gw.Tenants {
		out.Tenants[gw.Tenants[i].Name] = gw.Tenants[i].Plan
	}
	return out
}
