package config

import (
	"net/netip"
	"time"
)

// Gateway is a valid gateway file: every reference resolves, every default and
// inherited value is filled in, groups are flattened into their routes. Nothing
// downstream checks it again.
type Gateway struct {
	Listeners []Listener
	Identity  Identity
	Tenants   []Tenant
	Plans     []Plan
	RateLimit []Limit // over all routes
	Upstreams []Upstream
	Routes    []*Route // leaves only, in the order of the files
	AccessLog AccessLog
	Tracing   *Tracing // nil: none
}

// Edition is the same for two things of which a Parser knows that they say the
// same, wherever they stand in the files.
type Edition struct{ _ byte }

// Pos is a place in an operator's file; lines and columns count from 1.
type Pos struct {
	File      string
	Line, Col int
}

// Listener is one address that Envoy serves.
type Listener struct {
	Pos            Pos
	Name           string
	Address        netip.AddrPort // port 0: any free port
	TLS            *ListenerTLS   // nil: plain HTTP
	Flood          *Flood         // nil: off
	TrustedProxies []netip.Prefix // whose X-Forwarded-For counts; empty: nobody's
	RedirectHTTPS  bool
	Plaintext      bool
}

// ListenerTLS is what a listener needs to terminate TLS.
type ListenerTLS struct {
	Certs      []Cert
	MinVersion string        // "1.2" or "1.3"
	ClientCA   *Content      // nil: no client certificates
	HSTS       time.Duration // 0: no header
}

// Cert is a certificate chain with its key, PEM.
type Cert struct {
	Cert, Key Content
}

// Content is the text behind an env: or file: reference. Its String method
// and its JSON form show the reference, never the text.
type Content struct {
	Ref  string // as written
	Text string
}

func (c Content) String() string { return c.Ref }

// GoString keeps %#v from printing the text.
func (c Content) GoString() string { return c.Ref }

// MarshalText keeps encoders from printing the text.
func (c Content) MarshalText() ([]byte, error) { return []byte(c.Ref), nil }

// Flood is the per-address, per-proxy guard in front of everything else.
type Flood struct {
	Limit uint32
	Per   time.Duration
}

// Identity says whose credentials count.
type Identity struct {
	Issuers []Issuer
	APIKeys *APIKeys            // nil: none
	Roles   map[string][]string // role to permissions
}

// Issuer is a party whose JWTs are accepted.
type Issuer struct {
	Pos       Pos
	Name      string
	Issuer    string   // expected iss
	Audiences []string // never empty
	Typ       []string
	JWKS      Content // set when the key set comes from a file
	JWKSURL   string  // or from here; exactly one is set
	// MaxLifetime of a token, from iat to exp; 0: any.
	MaxLifetime time.Duration
	// Paths of claim names; a single name is a literal claim.
	TenantClaim, UserClaim, PermissionsClaim []string
}

// APIKeys says where keys are sent and stored.
type APIKeys struct {
	Header string // lower case
	Store  string // path as written after file:, relative to the gateway file
}

// Tenant is a customer; Name "*" stands for every other one.
type Tenant struct {
	Pos  Pos
	Name string
	Plan string // "" for none
}

// Plan holds the limits of the tenants on it.
type Plan struct {
	Pos       Pos
	Name      string
	RateLimit []Limit
}

// Algorithm is how a limit counts.
type Algorithm int

// The algorithms of this version.
const (
	Fixed Algorithm = iota
	GCRA
)

// OnError is what a limit does when its store fails.
type OnError int

// What a limit does when its store fails.
const (
	OnErrorLocal OnError = iota
	OnErrorOpen
	OnErrorClosed
)

// Limit is one rule of the limiter.
type Limit struct {
	Pos Pos
	// ID is "gateway/<name>", "plan/<plan>/<name>" or "route/<route>/<name>";
	// the name of an unnamed limit is its index.
	ID        string
	Limit     uint64
	Window    time.Duration
	Unit      string   // "second" … "month"; "" when written as a duration
	By        []string // tenant user credential ip route method header:x claim:X query:X
	Algorithm Algorithm
	Burst     uint64 // GCRA; 0: Limit
	Message   string
	OnError   OnError
	Shadow    bool // enforce: false
}

// Protocol is how an upstream is spoken to.
type Protocol int

// The protocols of upstreams.
const (
	HTTP1 Protocol = iota
	HTTP2
	GRPC
)

// Upstream is a set of endpoints, or a split over other upstreams.
// Exactly one of Endpoints, Registry, DNS, Split is set.
type Upstream struct {
	Pos            Pos
	Edition        *Edition `json:"-"` // nil: nobody compared it
	Name           string
	Endpoints      []Endpoint
	Registry       string         // service name in the registry
	Allow          []netip.Prefix // where its instances may be; none: the default
	DNS            string         // host:port
	Split          []SplitMember
	Sticky         *Sticky // only with Split
	Protocol       Protocol
	TLS            *UpstreamTLS // nil: plain
	Balancing      Balancing
	ConnectTimeout time.Duration
	HealthCheck    *HealthCheck // nil: none
	Breaker        Breaker
	BreakerHigh    *Breaker // thresholds for importance: high; nil: Envoy's default
	Outlier        *Outlier // nil: none
}

// Endpoint is one instance written in the file.
type Endpoint struct {
	Address  netip.AddrPort
	Weight   uint32 // ≥ 1
	Zone     string
	Failover uint32 // 0 is used first
}

// SplitMember is a share of a split.
type SplitMember struct {
	Upstream string
	Weight   uint32
}

// Sticky keeps a client on the member it first got. Exactly one of Cookie,
// Header is set.
type Sticky struct {
	Cookie string
	TTL    time.Duration
	Header string
}

// UpstreamTLS is how an upstream is verified and how we show ourselves.
type UpstreamTLS struct {
	CA   *Content // nil: system roots
	SAN  string   // "": the endpoint's name
	SNI  string
	Cert *Cert // nil: none
}

// Balancing is a load-balancing policy: round_robin, least_request, random,
// ring_hash or maglev.
type Balancing struct {
	Policy    string
	HashOn    string // "header:x", "cookie:x", "ip"; for ring_hash and maglev
	SlowStart time.Duration
	Zones     bool // prefer endpoints of the proxy's own zone
}

// HealthCheck is an active check; exactly one of Path, GRPC, TCP is set.
type HealthCheck struct {
	Path               string
	GRPC               bool
	TCP                bool
	Interval, Timeout  time.Duration
	Healthy, Unhealthy uint32
}

// Breaker bounds what one proxy may have open to an upstream.
type Breaker struct {
	MaxConnections, MaxPending, MaxRequests uint32
	RetryBudget                             float64 // percent
}

// Outlier ejects endpoints that fail. FailureRate or Consecutive5xx is set, or both.
type Outlier struct {
	FailureRate    uint32 // percent; 0: not used
	MinRequests    uint32
	Consecutive5xx uint32 // 0: not used
	Interval       time.Duration
	EjectFor       time.Duration
	MaxEjected     uint32 // percent
}

// Route is one leaf. Exactly one of Upstream, Respond, Redirect is set.
type Route struct {
	Pos             Pos
	Edition         *Edition `json:"-"` // nil: nobody compared it
	Name            string   // with its groups: "shop/orders"
	Listeners       []string // empty: all
	Match           Match
	Priority        int
	Auth            Auth
	Authorize       []Rule
	RateLimit       []Limit
	CORS            *CORS
	Timeout         Timeout
	Retry           *Retry        // nil: none
	MaxBody         int64         // bytes; 0: no bound; BodyNotWritten: DefaultMaxBody, but none for streams
	MaxStream       time.Duration // of a WebSocket or another stream; 0: no bound
	Upstream        string
	Respond         *Respond
	Redirect        *Redirect
	Rewrite         *Rewrite
	RequestHeaders  HeaderEdit
	ResponseHeaders HeaderEdit
	Mirror          *Mirror
	WebSocket       bool
	High            bool // importance: high
	Forward         bool // the credential goes upstream, never to the mirror
}

// The bound of request bodies where none is written.
const (
	// DefaultMaxBody is what most APIs can bear, in bytes (Envoy has no bound of its own).
	DefaultMaxBody = 10 << 20
	// BodyNotWritten stands for it: a stream has no end that could be bounded.
	BodyNotWritten = -1
)

// PathKind is how a path is matched.
type PathKind int

// The kinds of path match.
const (
	PathAny PathKind = iota // no path condition: every path
	PathExact
	PathPrefix   // whole segments; never ends in "/" unless it is "/"
	PathTemplate // "/v1/orders/{id}"
	PathRegex    // RE2, whole path
)

// Match says which requests a route takes.
type Match struct {
	Hosts   []string // lower case, no port; "*.x" allowed; empty: every host
	Kind    PathKind
	Path    string
	Methods []string // upper case; empty: all. GET includes HEAD
	Headers []Condition
	Query   []Condition
	Cookies []Condition
}

// Condition is a test on one header, query parameter or cookie.
type Condition struct {
	Name  string // headers: lower case
	Op    ConditionOp
	Value string // "" for Present
}

// ConditionOp is how a condition compares.
type ConditionOp int

// The comparisons.
const (
	Equals ConditionOp = iota
	HasPrefix
	Matches // RE2, whole value
	Present
	Absent
)

// AuthMode is how the credentials of a route combine.
type AuthMode int

// The modes.
const (
	AuthPublic AuthMode = iota + 1
	AuthAnyOf
	AuthAllOf
)

// Auth says which credentials a route takes.
type Auth struct {
	Mode        AuthMode
	Credentials []Credential // empty exactly for AuthPublic
}

// Credential is one kind: a JWT of an issuer, or an API key.
type Credential struct {
	JWT    string // issuer name
	APIKey bool
}

// Rule is one line of authorize; exactly one of Permission, Allow, Deny is set.
type Rule struct {
	Pos        Pos
	Permission string
	Allow      string // CEL
	Deny       string // CEL
	Methods    []string
	Shadow     bool
}

// CORS is what browsers of other origins may do.
type CORS struct {
	Origins       []string // exact, or "*", or "https://*.example.com"
	Methods       []string // empty: those of the route
	Headers       []string
	ExposeHeaders []string
	Credentials   bool
	MaxAge        time.Duration
}

// Timeout bounds a request, retries included. 0 means none.
type Timeout struct {
	Default  time.Duration
	ByMethod map[string]time.Duration // upper case
	PerTry   time.Duration            // 0: computed from the total
}

// Of returns the total for a method.
func (t Timeout) Of(method string) time.Duration {
	if d, ok := t.ByMethod[method]; ok {
		return d
	}
	return t.Default
}

// Retry says when a request is tried again. Attempts counts the first.
type Retry struct {
	Attempts                uint32
	RetryOn                 []string // Envoy's words and three-digit status codes
	BackoffBase, BackoffMax time.Duration
}

// WorstBackoff is the longest that all pauses between the attempts can take:
// before retry n Envoy waits less than base × (2ⁿ − 1), and at most max.
func (r Retry) WorstBackoff() time.Duration {
	total, pause := time.Duration(0), r.BackoffBase
	for range max(r.Attempts, 1) - 1 {
		total += min(pause, r.BackoffMax)
		pause = min(2*pause+r.BackoffBase, r.BackoffMax)
	}
	return total
}

// Respond is an answer made by Envoy itself.
type Respond struct {
	Status      uint32
	Body        string
	ContentType string
}

// Redirect is a redirect made by Envoy itself. Path may name variables of a
// template match.
type Redirect struct {
	Scheme, Host, Path string
	Prefix             string // replaces the matched prefix
	Code               uint32
	StripQuery         bool
}

// Rewrite changes what the upstream sees; at most one of Path, Prefix, Regex.
// Path may name variables of a template match.
type Rewrite struct {
	Path   string
	Prefix string
	Regex  *RegexRewrite
	Host   string
}

// RegexRewrite replaces every match of Pattern (RE2) in the path.
type RegexRewrite struct {
	Pattern, Substitution string
}

// HeaderEdit changes headers: Set overwrites, Add appends, Remove takes names
// and prefixes ("x-internal-*"). Names are lower case.
type HeaderEdit struct {
	Set, Add []Header
	Remove   []string
}

// Header is a name with a value.
type Header struct {
	Name, Value string
}

// Mirror sends a copy of some requests to another upstream.
type Mirror struct {
	Upstream string
	Percent  float64
}

// AccessLog says where Envoy's access log goes; Off wins.
type AccessLog struct {
	Off  bool
	Path string // "": standard error
}

// Tracing sends spans over OTLP/gRPC.
type Tracing struct {
	OTLP     string  // host:port
	Sampling float64 // percent
}
