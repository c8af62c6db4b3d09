package contract

// A proxy of a fleet finds its own certificate and the roots that it believes in
// two files of the SDS kind under ProxyIdentity, a folder of its working
// directory: the clusters that come over xDS are the same for all proxies, and
// no other name is. Both are watched: a file renamed over one counts at once.
const (
	ProxyIdentity     = "tollgate-identity"
	ProxyCertificate  = "certificate.json" // in it
	ProxyRoots        = "roots.json"       // in it
	SecretCertificate = "tollgate-certificate"
	SecretRoots       = "tollgate-roots"
)

// SPIFFE returns what the name of a certificate of a role begins with.
func SPIFFE(trustDomain, role string) string {
	return "spiffe://" + trustDomain + "/" + role + "/"
}

// The roles that certificates of a fleet name.
const (
	RoleXDS       = "xds"
	RoleEdge      = "edge"
	RoleExtAuthz  = "extauthz"
	RoleRateLimit = "ratelimit"
	RoleService   = "service"
	RoleClient    = "client"
)
