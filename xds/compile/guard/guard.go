// Package guard builds what a listener refuses before any route, policy or
// limit is asked. Invariant: a request that goes on is read in one way by Envoy,
// by the authorization server and by upstreams, and nothing in it speaks for the
// gateway; the filters follow from the listener alone, so that an edit of routes
// never touches a filter chain.
package guard

import (
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"

	"tollgate/internal/oneview"
	"tollgate/xds/compile/field"
)

// Filter is the name of the filter that guards every request of a listener.
const Filter = "tollgate.guard"

// Every names the policy by which a request was refused: Envoy's access log
// shows it in `details`.
const (
	hostPolicy      = "guard-host"
	methodPolicy    = "guard-method"
	targetPolicy    = "guard-target"
	parameterPolicy = "guard-parameters"
)

// Every is the configuration of Filter.
func Every() *rbacv3.RBAC {
	return &rbacv3.RBAC{Rules: deny(map[string]*rbacconfigv3.Permission{
		hostPolicy:      both(unless(":authority", oneview.HostPattern), notTunnel()),
		methodPolicy:    unless(":method", oneview.MethodPattern),
		targetPolicy:    unless(":path", oneview.TargetPattern),
		parameterPolicy: when(":path", oneview.TooManyPattern),
	})}
}

// notTunnel holds unless it is CONNECT to a host and a port, which no route takes.
func notTunnel() *rbacconfigv3.Permission {
	return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_OrRules{OrRules: &rbacconfigv3.Permission_Set{Rules: []*rbacconfigv3.Permission{
		unless(":method", "CONNECT"), unless(":authority", oneview.AuthorityPattern),
	}}}}
}

func deny(policies map[string]*rbacconfigv3.Permission) *rbacconfigv3.RBAC {
	out := &rbacconfigv3.RBAC{Action: rbacconfigv3.RBAC_DENY, Policies: make(map[string]*rbacconfigv3.Policy, len(policies))}
	for name, p := range policies {
		out.Policies[name] = &rbacconfigv3.Policy{
			Permissions: []*rbacconfigv3.Permission{p},
			Principals:  []*rbacconfigv3.Principal{{Identifier: &rbacconfigv3.Principal_Any{Any: true}}},
		}
	}
	return out
}

// when holds if the header is there and the whole of it matches.
func when(name, pattern string) *rbacconfigv3.Permission {
	return permission(field.Header(name, field.Pattern(pattern)))
}

// unless holds if the header is there and does not match: CONNECT has no path.
func unless(name, pattern string) *rbacconfigv3.Permission {
	m := field.Header(name, field.Pattern(pattern))
	m.InvertMatch = true
	return permission(m)
}

func permission(m *routev3.HeaderMatcher) *rbacconfigv3.Permission {
	return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_Header{Header: m}}
}
