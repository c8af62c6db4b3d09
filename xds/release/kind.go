package release

// Kind is how the resources of one type are delivered.
type Kind struct {
	URL string
	// Deciding says that it goes to the servers that decide on requests: they
	// have it before the proxies get what needs it.
	Deciding bool
	// Listed says that a request that names nothing asks for all there is. An Envoy
	// that lost its last listener asks so for routes and wants none.
	Listed bool
	// Lasting says that what vanished stays until no route names it. Envoy ignores
	// the removal of the others.
	Lasting bool
	// Single says that each goes in a response of its own, because Envoy would
	// apply an unpredictable part of a refused one.
	Single bool
	// Withheld says that the answer comes only when all that was sent is warm.
	Withheld bool
	// Complete says that, by state of the world, what is not in a response is gone.
	Complete bool
}

// kinds are in the order in which they are sent: who is named comes before who
// names it.
var kinds = [...]Kind{ //nolint:gochecknoglobals // a constant; Go has no constant arrays
	{URL: TypeRuntime},
	{URL: TypeIdentity, Deciding: true, Listed: true},
	{URL: TypePolicy, Deciding: true, Listed: true, Lasting: true},
	{URL: TypeRuleSet, Deciding: true, Listed: true, Lasting: true},
	{URL: TypeRateLimit, Deciding: true, Listed: true, Single: true},
	{URL: TypeCluster, Listed: true, Lasting: true, Withheld: true, Complete: true},
	{URL: TypeEndpoint, Lasting: true, Single: true},
	{URL: TypeSecret, Single: true},
	{URL: TypeListener, Listed: true, Complete: true},
	// No route names a scope, so it stays for a while, with its routes: a listener
	// that was replaced looks for routes by it until its last connection has drained.
	{URL: TypeScope, Listed: true, Lasting: true},
	{URL: TypeRoute, Single: true},
}

// Kinds are the types that are served, in the order in which they are sent.
func Kinds() [len(kinds)]Kind { return kinds }

// KindOf returns the kind of a type; served is false when there is none.
func KindOf(typeURL string) (kind Kind, served bool) {
	for _, k := range kinds {
		if k.URL == typeURL {
			return k, true
		}
	}
	return Kind{}, false
}
