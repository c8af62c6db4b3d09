package celenv

import "strings"

// Grants is a set of permissions "resource:action", "*" for either part or
// alone for everything. The zero value grants nothing.
type Grants struct {
	all       bool
	exact     map[string]struct{}
	resources map[string]struct{} // of "resource:*"
	actions   map[string]struct{} // of "*:action"
}

// NewGrants indexes permissions; roles are expanded by the caller. An entry
// without ":" that is not "*" grants nothing: it is a role that nobody declared.
func NewGrants(permissions []string) *Grants {
	g := &Grants{exact: map[string]struct{}{}, resources: map[string]struct{}{}, actions: map[string]struct{}{}}
	for _, p := range permissions {
		resource, action, ok := strings.Cut(p, ":")
		switch {
		case p == "*", p == "*:*":
			g.all = true
		case !ok || resource == "" || action == "":
		case action == "*":
			g.resources[resource] = struct{}{}
		case resource == "*":
			g.actions[action] = struct{}{}
		default:
			g.exact[p] = struct{}{}
		}
	}
	return g
}

// Can reports whether everything that permission names is granted: "orders:*"
// needs all actions on orders, not just one.
func (g *Grants) Can(permission string) bool {
	resource, action, ok := strings.Cut(permission, ":")
	if g.all {
		return true
	}
	if !ok {
		return false
	}
	if _, ok := g.exact[permission]; ok {
		return true
	}
	if _, ok := g.resources[resource]; ok {
		return true
	}
	_, ok = g.actions[action]
	return ok
}
