package contract

// Names of headers that only the gateway, or a proxy in front of it, may say.
// Clients' own are dropped from every request before anything looks at it, and
// from its trailers. All are in lower case.

// The beginnings of names that belong to the gateway alone.
const (
	PrefixIdentity = "x-auth-"
	PrefixProxy    = "x-envoy-"
)

// HeaderScope is where a proxy notes in which part of its routes it looks for
// that of a request. Nobody else can say it, and no upstream sees it.
const HeaderScope = PrefixProxy + "tollgate-scope"

// StrippedPrefixes are the beginnings of such names.
func StrippedPrefixes() []string { return []string{PrefixIdentity, PrefixProxy, "x-forwarded-"} }

// StrippedNames are such names. The request id is the gateway's own: logs and
// error envelopes name a request by it.
func StrippedNames() []string {
	return []string{
		"x-tenant-id", "x-user-id", "x-original-url", "x-rewrite-url", "x-http-method-override", "x-http-method", "x-method-override",
		"forwarded", "x-real-ip", "true-client-ip", "cf-connecting-ip", "x-client-ip", "x-original-uri", "x-original-method", "x-original-host", "x-host",
		"remote-user", "x-remote-user", HeaderProxyAuthorization, HeaderRequestID,
	}
}

// ForwardedByProxies are the names with the prefix x-forwarded- that a trusted
// proxy may say: those of where the client and its connection were. Who the user
// is (x-forwarded-user, -email, -groups, -client-cert) is not its to say.
func ForwardedByProxies() []string {
	return []string{"x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto"}
}
