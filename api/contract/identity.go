package contract

// What the authorization server tells a proxy of a request, as dynamic metadata
// under the name of its filter: always present, always strings.
const (
	AuthzFilter = "envoy.filters.http.ext_authz"

	KeyTenant     = "tenant"
	KeyUser       = "user"
	KeyPlan       = "plan"
	KeyKind       = "kind" // of the credential
	KeyCredential = "credential"
	KeyCost       = "cost"
	KeyPolicy     = "policy" // also the context extension that binds a route to its policy
	KeyRule       = "rule"
	KeyReason     = "reason"

	// KeyMirrorToken is where the identity token of a mirrored copy is left, which
	// the primary upstream never sees.
	KeyMirrorToken = "mirror-token"

	// None is the value of what a request does not have.
	None = "(none)"
)

// Headers in which upstreams are told who calls. Only the token proves it; the
// others are for logs.
const (
	HeaderToken  = "x-auth-token"
	HeaderUser   = "x-auth-user"
	HeaderKind   = "x-auth-kind"
	HeaderTenant = "x-auth-tenant"
)

// HeaderRequestID names a request in logs and errors; the gateway makes it.
const HeaderRequestID = "x-request-id"

// HeaderProxyAuthorization is for the next proxy alone.
const HeaderProxyAuthorization = "proxy-authorization"

// HeaderKey is where API keys are sent unless the gateway file says otherwise.
const HeaderKey = "x-api-key"
