package contract

// The types of resources that the control plane serves.
const (
	TypeListener  = "type.googleapis.com/envoy.config.listener.v3.Listener"
	TypeRoute     = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	TypeScope     = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration"
	TypeCluster   = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	TypeEndpoint  = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	TypeSecret    = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
	TypeRuntime   = "type.googleapis.com/envoy.service.runtime.v3.Runtime"
	TypePolicy    = "type.googleapis.com/tollgate.authz.v1.Policy"
	TypeIdentity  = "type.googleapis.com/tollgate.authz.v1.Identity"
	TypeRuleSet   = "type.googleapis.com/tollgate.limits.v1.RuleSet"
	TypeRateLimit = "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig"
)

// Names of resources that there is one of.
const (
	RuntimeLayer = "tollgate-runtime" // the runtime that a proxy's bootstrap asks for
	IdentityName = "identity"         // issuers, tenants, plans
)
