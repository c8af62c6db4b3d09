package check

import (
	"fmt"
	"slices"
	"strings"

	"tollgate/internal/celenv"
	"tollgate/internal/strictyaml"
	"tollgate/xds/config/inherit"
	"tollgate/xds/config/syntax"
)

// Routes checks groups and routes; which of them tie is for package config.
func (c *Checker) Routes(routes []inherit.Route) {
	for i := range routes {
		if r := &routes[i]; r.Own.Name.V != "" {
			c.named("route", r.Name, r.Own.Name.Pos, r.Path)
		}
		c.Route(&routes[i])
	}
}

// Route checks a group or a route by itself.
func (c *Checker) Route(r *inherit.Route) {
	if !r.IsGroup() {
		c.route(r)
	} else if len(r.Own.Routes) == 0 {
		c.report(r.Own.Pos, r.Path+".routes", "is an empty group: write its routes, or remove `routes`")
	}
}

func (c *Checker) route(r *inherit.Route) {
	s, path := r.Full, r.Path
	for _, l := range s.Listeners.Items {
		c.known("listener", l, path+".listeners")
	}
	if s.Listeners.IsSet() && len(s.Listeners.Items) == 0 && !s.Listeners.None {
		c.report(s.Listeners.Pos, path+".listeners", "is empty, so nobody could reach the route: remove it for all listeners")
	}
	c.match(s.Match, path+".match")
	if s.Auth == nil {
		c.report(r.Own.Pos, path, "auth is missing: write `auth: public`, or name the credentials")
	} else {
		c.auth(s.Auth, path+".auth")
		c.rules(s, path+".authorize")
		c.anonymous(s, path+".rate_limit")
	}
	c.limits(s.RateLimit.Items, path+".rate_limit", 0, map[string]strictyaml.Pos{})
	c.cors(s.CORS, path+".cors")
	c.retry(s.Retry, path+".retry")
	c.headerEdit(s.RequestHeaders, path+".request_headers")
	c.headerEdit(s.ResponseHeaders, path+".response_headers")
	c.target(r)
}

// auth checks the credentials of a route.
func (c *Checker) auth(s *syntax.Auth, path string) {
	c.credentials(path, syntax.Credential{Pos: s.Pos, CredentialKind: s.CredentialKind})
	c.credentialList(path+".any_of", s.AnyOf)
	c.credentialList(path+".all_of", s.AllOf)
	tokens := 0
	for _, credential := range s.AllOf.Items {
		if credential.JWT.V != "" {
			tokens++
		}
	}
	if tokens > 1 {
		c.report(s.AllOf.Pos, path+".all_of", "asks for %d tokens, but a request carries one: name one issuer", tokens)
	}
}

func (c *Checker) credentialList(path string, list strictyaml.List[syntax.Credential]) {
	if list.IsSet() && len(list.Items) == 0 {
		c.report(list.Pos, path, "is empty: name a credential, or write `auth: public`")
	}
	c.credentials(path, list.Items...)
}

func (c *Checker) credentials(path string, list ...syntax.Credential) {
	for i, one := range list {
		if one.APIKey && !c.has(Use{apiKeys, ""}) {
			c.report(one.Pos, path, "api_key needs identity.api_keys: write identity: {api_keys: {store: file:keys.yaml}}")
		}
		c.known("issuer", one.JWT, path+".jwt")
		same := func(o syntax.Credential) bool { return o.APIKey == one.APIKey && o.JWT.V == one.JWT.V }
		if (one.APIKey || one.JWT.V != "") && slices.ContainsFunc(list[:i], same) {
			c.report(one.Pos, path, "the same credential is there twice")
		}
	}
}

// rules checks that authorize has a caller and lets somebody in.
func (c *Checker) rules(s *syntax.Route, path string) {
	rules := s.Authorize
	if s.Auth.Public && len(rules.Items) > 0 {
		c.report(rules.Pos, path, "a public route has no caller to authorize: write `authorize: none` beside `auth: public`, or another auth")
	}
	if rules.IsSet() && len(rules.Items) == 0 && !rules.None {
		c.report(rules.Pos, path, "is empty: write rules, or `authorize: none` for every authenticated caller")
	}
	admits, enforced, cost := false, false, uint64(0)
	for i := range rules.Items {
		rule := &rules.Items[i]
		at := fmt.Sprintf("%s[%d]", path, i)
		cost += c.expression(&rule.Allow, at+".allow") + c.expression(&rule.Deny, at+".deny")
		if !rule.Enforce.IsSet() || rule.Enforce.V {
			enforced = true
			admits = admits || !rule.Deny.IsSet()
		}
	}
	if cost > celenv.MaxCost {
		c.report(rules.Pos, path, "its rules together may cost up to %d units, at most %d are allowed: use fewer loops and regular expressions", cost, celenv.MaxCost)
	}
	if enforced && !admits {
		c.report(rules.Pos, path, "has neither allow nor permission, so nobody would get in: add one, such as {allow: 'true'}")
	}
}

// expression compiles CEL as the authorization servers will, and returns what it
// may cost.
func (c *Checker) expression(s *syntax.Text, path string) (cost uint64) {
	if !s.IsSet() {
		return 0
	}
	program, err := c.cel.Compile(s.V)
	switch {
	case err != nil && s.Ref != "":
		c.report(s.Pos, path, "what %s stands for is not a valid expression", s.Ref)
	case err != nil:
		c.report(s.Pos, path, "%v", err)
	default:
		for _, w := range program.Warnings() {
			c.warn(s.Pos, path, "%s", w)
		}
		return program.Cost()
	}
	return 0
}

// anonymous warns of limits that count all callers of a public route as one.
func (c *Checker) anonymous(s *syntax.Route, path string) {
	if !s.Auth.Public {
		return
	}
	for _, l := range s.RateLimit.Items {
		for _, by := range l.By {
			if by.V == "tenant" || by.V == "user" || by.V == "credential" || strings.HasPrefix(string(by.V), "claim:") {
				c.warn(by.Pos, path, "counts by %s, but a public route knows no caller: all share one counter; by: [ip] tells them apart", by.V)
			}
		}
	}
}

// target checks where the request goes: exactly one of three.
func (c *Checker) target(r *inherit.Route) {
	s, path := r.Full, r.Path
	if s.Upstream.IsSet() {
		c.known("upstream", s.Upstream, path+".upstream")
		c.rewrite(s.Rewrite, s.Match, path+".rewrite")
		c.mirror(s.Mirror, path+".mirror")
		return
	}
	switch {
	case s.Respond != nil:
		c.respond(s.Respond, path+".respond")
	case s.Redirect != nil:
		c.redirect(s.Redirect, s.Match, path+".redirect")
	default:
		c.report(r.Own.Pos, path, "goes nowhere: write upstream, respond or redirect")
	}
	c.local(r.Own, path)
	if len(r.Own.RateLimit.Items) > 0 {
		c.warn(r.Own.RateLimit.Pos, path+".rate_limit", "counts nothing: only requests that go to an upstream are counted")
	}
}

// mirror checks who gets the copies.
func (c *Checker) mirror(s *syntax.Mirror, path string) {
	if s == nil || s.Off {
		return
	}
	if !s.Upstream.IsSet() {
		c.report(s.Pos, path, "upstream is missing: name the one that gets the copies")
	}
	if c.known("upstream", s.Upstream, path+".upstream") && !c.has(Use{whole, string(s.Upstream.V)}) {
		c.report(s.Upstream.Pos, path+".upstream", "%q is a split: name one of its members", s.Upstream.Shown())
	}
}
