package check

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"tollgate/internal/celenv"
	"tollgate/internal/strictyaml"
	"tollgate/xds/config/inherit"
	"tollgate/xds/config/syntax"
)

const (
	// reservedPrefix begins the names of the gateway's own clusters.
	reservedPrefix = "tollgate-"
	// maxSuggestions bounds the search for near names: ten thousand wrong names
	// among ten thousand right ones would take minutes.
	maxSuggestions = 100
)

// Checker checks the files of one gateway. It knows what their parts are called.
type Checker struct {
	report, warn Report
	cel          *celenv.Env
	suggested    int
	used         func(Use) // nil: nobody asks
	splits       map[string]bool
	names        map[string][]string                  // by what they name, in order
	places       map[string]map[string]strictyaml.Pos // the same, with where
}

// New returns a Checker that says what is wrong to report and to warn, and
// compiles expressions with cel.
func New(cel *celenv.Env, report, warn Report) *Checker {
	return &Checker{
		report: report, warn: warn, cel: cel, splits: map[string]bool{},
		names: map[string][]string{}, places: map[string]map[string]strictyaml.Pos{},
	}
}

// named notes a name; a second one is a fault that shows both places.
func (c *Checker) named(what, name string, pos strictyaml.Pos, path string) {
	if name == "" { // faulty already
		return
	}
	if c.places[what] == nil {
		c.places[what] = map[string]strictyaml.Pos{}
	}
	if first, twice := c.places[what][name]; twice {
		c.report(pos, path, "the name %q is taken: %s:%d:%d has it too", name, first.File, first.Line, first.Col)
		return
	}
	c.places[what][name] = pos
	c.names[what] = append(c.names[what], name)
}

// known says whether a name is there; if not, which one was probably meant.
func (c *Checker) known(what string, name syntax.Identifier, path string) bool {
	if name.V == "" {
		return false // not written, or faulty already
	}
	if c.has(Use{what, string(name.V)}) {
		return true
	}
	hint := ""
	if c.suggested++; c.suggested <= maxSuggestions {
		hint = strictyaml.Suggest(name.Shown(), c.names[what])
	}
	if len(c.names[what]) == 0 {
		hint = "; the file names no " + what
	}
	c.report(name.Pos, path, "no %s is named %q%s", what, name.Shown(), hint)
	return false
}

// Files checks everything but upstreams and routes.
func (c *Checker) Files(files []*syntax.File) {
	listeners, gateway := 0, 0
	for _, f := range files {
		c.identity(f.Identity)
		for i := range f.Listeners {
			l := &f.Listeners[i]
			path := element("listeners", l.Name, listeners)
			c.named("listener", string(l.Name.V), l.Name.Pos, path)
			c.listener(l, path)
			listeners++
		}
		for i := range f.Plans {
			p := &f.Plans[i]
			path := element("plans", p.Name, i)
			c.named("plan", string(p.Name.V), p.Name.Pos, path)
			c.limits(p.RateLimit.Items, path+".rate_limit", 0, map[string]strictyaml.Pos{})
			c.shared(p.RateLimit.Items, path+".rate_limit")
		}
	}
	seen := map[string]strictyaml.Pos{}
	for _, f := range files {
		for i := range f.Tenants {
			t := &f.Tenants[i]
			path := fmt.Sprintf("tenants[%s]", t.Name.V)
			c.named("tenant", string(t.Name.V), t.Name.Pos, path)
			c.known("plan", t.Plan, path+".plan")
		}
		c.limits(f.RateLimit.Items, "rate_limit", gateway, seen)
		gateway += len(f.RateLimit.Items)
	}
	c.strangers(files)
}

// strangers warns of issuers all of whose callers are refused, because the file
// has no tenants: the first hour of who brings an identity provider for people.
func (c *Checker) strangers(files []*syntax.File) {
	if slices.ContainsFunc(files, func(f *syntax.File) bool { return len(f.Tenants) > 0 }) {
		return
	}
	for _, f := range files {
		if f.Identity == nil {
			continue
		}
		for i := range f.Identity.Issuers {
			s := &f.Identity.Issuers[i]
			c.warn(s.Pos, element("identity.issuers", s.Name, i),
				"a token whose tenant is not in the file is refused (403 unknown_tenant), and the file names no tenants: write those that its tokens name (by claims: {tenant: CLAIM}, unless the claim is called tenant), or `tenants: [{name: \"*\"}]` to take every caller")
		}
	}
}

func element(list string, name syntax.Identifier, i int) string {
	if name.V == "" {
		return fmt.Sprintf("%s[%d]", list, i)
	}
	return fmt.Sprintf("%s[%s]", list, name.V)
}

// identity checks issuers, keys and roles.
func (c *Checker) identity(s *syntax.Identity) {
	if s == nil {
		return
	}
	for i := range s.Issuers {
		path := element("identity.issuers", s.Issuers[i].Name, i)
		c.named("issuer", string(s.Issuers[i].Name.V), s.Issuers[i].Name.Pos, path)
		c.issuer(&s.Issuers[i], path)
	}
	if s.APIKeys != nil {
		if c.has(Use{apiKeys, ""}) {
			c.report(s.APIKeys.Pos, "identity.api_keys", "is written in two files: keep one")
		}
		c.names[apiKeys] = []string{""}
		c.keys(s.APIKeys)
	}
	for _, role := range s.Roles.Items {
		path := "identity.roles." + role.Key.V
		var name syntax.Name
		if err := name.UnmarshalText([]byte(role.Key.V)); err != nil {
			c.report(role.Key.Pos, path, "a role %v", err)
			continue
		}
		c.named("role", role.Key.V, role.Key.Pos, path)
	}
}

// limits checks the limits of one owner; two that would share a counter are a fault.
func (c *Checker) limits(limits []syntax.Limit, path string, first int, seen map[string]strictyaml.Pos) {
	for i := range limits {
		l := &limits[i]
		name := string(l.Name.V)
		if name == "" {
			name = strconv.Itoa(first + i)
		}
		c.limit(l, path+"["+name+"]")
		if other, twice := seen[name]; twice {
			c.report(l.Pos, path, "two limits are named %q and would share a counter: %s:%d:%d is the other; name one of them", name, other.File, other.Line, other.Col)
			continue
		}
		seen[name] = l.Pos
	}
}

// Upstreams checks upstreams and splits.
func (c *Checker) Upstreams(upstreams []inherit.Upstream) {
	for i := range upstreams {
		c.UpstreamName(upstreams[i].Own, upstreams[i].Path)
	}
	for i := range upstreams {
		c.Upstream(&upstreams[i])
	}
}

// UpstreamName notes what an upstream is called; all of them come before the
// first is checked.
func (c *Checker) UpstreamName(s *syntax.Upstream, path string) {
	name := string(s.Name.V)
	if strings.HasPrefix(name, reservedPrefix) {
		c.report(s.Name.Pos, path, "names that begin with %s are the gateway's own", reservedPrefix)
	}
	c.named("upstream", name, s.Name.Pos, path)
	if c.splits[name] = s.Split != nil; c.splits[name] {
		c.names[split] = append(c.names[split], name)
	}
}

// Upstream checks an upstream or a split.
func (c *Checker) Upstream(u *inherit.Upstream) {
	if u.Own.Split != nil {
		c.split(u.Own, u.Path)
		c.members(u.Own, u.Path+".split")
		return
	}
	if k := u.Own.Sticky; k != nil && !k.Off {
		c.report(k.Pos, u.Path+".sticky", "only a split is sticky; for one upstream write load_balancing: {policy: ring_hash, hash_on: …}")
	}
	c.endpoints(u.Own, u.Path+".endpoints")
	c.discovery(u.Own.Discovery, u.Path+".discovery.allow")
	c.settings(&u.Settings, u.Path)
}

// members checks that the members of a split are real.
func (c *Checker) members(s *syntax.Upstream, path string) {
	seen := map[syntax.Name]bool{}
	for _, m := range s.Split {
		name := m.Upstream.V
		at := fmt.Sprintf("%s[%s]", path, name)
		switch {
		case name != "" && name == s.Name.V:
			c.report(m.Upstream.Pos, at, "a split cannot be its own member")
		case !c.known("upstream", m.Upstream, at):
		case !c.has(Use{whole, string(name)}):
			c.report(m.Upstream.Pos, at, "%q is a split itself: name its members here, with their weights", m.Upstream.Shown())
		case seen[name]:
			c.report(m.Upstream.Pos, at, "%q is there twice: add up its weights", m.Upstream.Shown())
		}
		seen[name] = true
	}
}
