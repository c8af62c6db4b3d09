package syntax

import (
	"fmt"

	"tollgate/internal/strictyaml"
	"tollgate/xds/config/paths"
)

// Route is a route, or a group of routes that inherit all it says.
type Route struct {
	strictyaml.Pos
	// Name of the route; inside a group it is prefixed: shop/orders.
	Name Identifier `yaml:"name,required"`
	// Match says which requests it takes. Absent: all.
	Match    *Match `yaml:"match" example:"{path: {prefix: /x}}" other:"path prefix hosts host methods"`
	Settings `yaml:",inline"`
	// Upstream that answers.
	Upstream Identifier `yaml:"upstream" alt:"target"`
	// Respond makes Envoy answer itself.
	Respond *Respond `yaml:"respond" alt:"target" example:"{status: 200, body: ok}"`
	// Redirect makes Envoy redirect.
	Redirect *Redirect `yaml:"redirect" alt:"target" example:"{path: /y}"`
	// Routes make this a group.
	Routes []Route `yaml:"routes,nest" example:"[{name: inner, upstream: orders}]"`
}

// Settings are what routes inherit from groups and defaults: the nearest level
// wins, blocks merge key by key, lists and auth replace, `none` turns off.
type Settings struct {
	// Auth names the credentials: public, api_key, {jwt: ISSUER}, {any_of: […]}, {all_of: […]}. Every route has one or inherits one.
	Auth *Auth `yaml:"auth"`
	// Authorize says what a caller may do: a deny that holds refuses, otherwise one allow or permission must hold. Absent: every authenticated caller. Expressions see request.{method, path, segments, host, headers, query, client_ip, time}, segments and query decoded; a header or parameter that they look at and that is there twice is refused (400).
	Authorize strictyaml.List[Rule] `yaml:"authorize" example:"[{permission: \"orders:read\"}]" other:"permission permissions allow deny"`
	// RateLimit bounds the requests of this route.
	RateLimit strictyaml.List[Limit] `yaml:"rate_limit" example:"[{limit: 100, per: minute}]"`
	// CORS is what browsers of other origins may do.
	CORS *CORS `yaml:"cors" example:"{origins: [https://app.example.com]}"`
	// Timeout of a request, retries included: a duration, `none`, or {default, get, …, per_try}. Default 15s.
	Timeout *Timeout `yaml:"timeout"`
	// Retry says when a request is tried again. None unless set.
	Retry *Retry `yaml:"retry" example:"{attempts: 3}" other:"retries"`
	// MaxBody of a request: a size or `none`. Default 10MiB; none for streams (WebSocket, gRPC, or a timeout of none or over a minute).
	MaxBody strictyaml.Value[Bytes] `yaml:"max_body"`
	// Rewrite changes the path and host that the upstream sees.
	Rewrite *Rewrite `yaml:"rewrite" example:"{prefix: /}" other:"strip_prefix"`
	// RequestHeaders changes what the upstream sees.
	RequestHeaders *HeaderEdit `yaml:"request_headers" example:"{set: {x-a: b}}"`
	// ResponseHeaders changes what the client sees.
	ResponseHeaders *HeaderEdit `yaml:"response_headers" example:"{set: {x-a: b}}"`
	// Mirror sends a copy of some requests to another upstream.
	Mirror *Mirror `yaml:"mirror" example:"{upstream: orders}"`
	// WebSocket lets a request upgrade.
	WebSocket Flag `yaml:"websocket"`
	// Priority before all rules of specificity; higher first. Default 0.
	Priority Number `yaml:"priority" range:"-1000000..1000000"`
	// Importance: high uses the breaker's `high` thresholds.
	Importance Text `yaml:"importance" oneof:"normal high"`
	// MaxStream ends a WebSocket, or another request on a route of streams (gRPC, or a timeout of none or over a minute): a duration or `none`. It ends sooner when the caller's credential does. Default 1h.
	MaxStream strictyaml.Value[SpanOrNone] `yaml:"max_stream"`
	// Forward passes the caller's credential upstream, never to the mirror.
	Forward Flag `yaml:"forward"`
	// Listeners that serve the route. Absent: all.
	Listeners strictyaml.List[Identifier] `yaml:"listeners" example:"[http]"`

	Revocation strictyaml.Later `yaml:"revocation"`
	GRPCJSON   strictyaml.Later `yaml:"grpc_json"`
	GRPCWeb    strictyaml.Later `yaml:"grpc_web"`
}

// Match says which requests a route takes.
type Match struct {
	strictyaml.Pos
	// Hosts without port; *.example.com for every host below. Absent: every host.
	Hosts strictyaml.List[strictyaml.Value[Hostname]] `yaml:"hosts" example:"[api.example.com]"`
	// Path: exact, then template, then regex, then the longest prefix.
	Path *PathMatch `yaml:"path" example:"{prefix: /x}" other:"prefix exact template regex"`
	// Methods; GET includes HEAD. Absent: all.
	Methods strictyaml.List[strictyaml.Value[Method]] `yaml:"methods" example:"[GET, POST]"`
	// Headers that the request must have: a value, or {exact | prefix | regex | present}. A request with two lines of such a header is refused (400).
	Headers strictyaml.Map[Condition] `yaml:"headers" example:"{x-a: b}"`
	// Query parameters that it must have, names and values decoded; regex compares values without escapes. A request with such a parameter twice is refused (400).
	Query strictyaml.Map[Condition] `yaml:"query" example:"{page: \"1\"}"`
	// Cookies that it must have.
	Cookies strictyaml.Map[Condition] `yaml:"cookies" example:"{beta: \"1\"}"`
}

// PathMatch is one way to match a path.
type PathMatch struct {
	strictyaml.Pos
	// Exact path, without wildcards and variables.
	Exact strictyaml.Value[paths.ExactPath] `yaml:"exact" alt:"path!"`
	// Prefix of whole segments, without a wildcard: /a matches /a and /a/b, never /ab.
	Prefix strictyaml.Value[paths.PathPrefix] `yaml:"prefix" alt:"path!"`
	// Template with variables for whole segments: /v1/orders/{id}.
	Template strictyaml.Value[paths.PathTemplate] `yaml:"template" alt:"path!"`
	// Regex of RE2 over the whole path.
	Regex strictyaml.Value[Pattern] `yaml:"regex" alt:"path!"`
}

// Replaces reports whether outer levels are forgotten.
func (p *PathMatch) Replaces() bool { return true }

// Condition is a test on a header, a query parameter or a cookie; a single word is an exact value.
type Condition struct {
	strictyaml.Pos
	// Exact value.
	Exact Text `yaml:"exact" alt:"condition!"`
	// Prefix of the value.
	Prefix Text `yaml:"prefix" alt:"condition!"`
	// Regex of RE2 over the whole value.
	Regex strictyaml.Value[Pattern] `yaml:"regex" alt:"condition!"`
	// Present: true asks that it is there, false that it is not.
	Present Flag `yaml:"present" alt:"condition!"`
}

// Shorthand takes an exact value.
func (c *Condition) Shorthand(s strictyaml.Scalar) error {
	c.Exact.Locate(c.Pos)
	return c.Exact.Set(s)
}

// Auth names the credentials of a route.
type Auth struct {
	strictyaml.Pos
	Public         bool
	CredentialKind `yaml:",inline"`
	// AnyOf: the one kind of credential that the request carries decides.
	AnyOf strictyaml.List[Credential] `yaml:"any_of" alt:"auth!" example:"[{jwt: idp}, api_key]"`
	// AllOf: every one must be there; the first names the caller.
	AllOf strictyaml.List[Credential] `yaml:"all_of" alt:"auth!" example:"[{jwt: idp}, api_key]"`
}

// Replaces reports whether outer levels are forgotten.
func (a *Auth) Replaces() bool { return true }

// Shorthand takes public or api_key.
func (a *Auth) Shorthand(s strictyaml.Scalar) error {
	switch s.Written {
	case "public":
		a.Public = true
		return nil
	case none:
		return fmt.Errorf("`none` is no auth: write `auth: public` for a route that everybody may use")
	default:
		return a.word(s.Written, "public, api_key, {jwt: ISSUER}, {any_of: […]}, {all_of: […]}")
	}
}

// Credential is one kind of credential.
type Credential struct {
	strictyaml.Pos
	CredentialKind `yaml:",inline"`
}

// Shorthand takes api_key.
func (c *Credential) Shorthand(s strictyaml.Scalar) error {
	return c.word(s.Written, "api_key, {jwt: ISSUER}")
}

// CredentialKind is what Auth and Credential have in common.
type CredentialKind struct {
	APIKey bool
	// JWT of the issuer with this name.
	JWT Identifier `yaml:"jwt" alt:"auth!"`

	Webhook strictyaml.Later `yaml:"webhook"`
}

func (c *CredentialKind) word(written, known string) error {
	switch written {
	case "api_key":
		c.APIKey = true
		return nil
	case "mtls":
		return fmt.Errorf("mtls is not supported in this version")
	default:
		return fmt.Errorf("%q is not one of %s%s", strictyaml.Clip([]byte(written)), known, strictyaml.Suggest(written, []string{"public", "api_key"}))
	}
}

// Rule is one line of authorize.
type Rule struct {
	strictyaml.Pos
	// Permission that the caller needs: resource:action.
	Permission strictyaml.Value[Permission] `yaml:"permission" alt:"rule!"`
	// Allow is a CEL expression that admits when it holds.
	Allow Text `yaml:"allow" alt:"rule!"`
	// Deny is a CEL expression that refuses when it holds or fails.
	Deny Text `yaml:"deny" alt:"rule!"`
	// Methods that the rule is about. Absent: all.
	Methods []strictyaml.Value[Method] `yaml:"methods" example:"[GET, POST]"`
	// Enforce: false decides and reports, but is never acted on.
	Enforce Flag `yaml:"enforce"`
}

// CORS is what browsers of other origins may do.
type CORS struct {
	Block
	// Origins: https://app.example.com, https://*.example.com, or "*".
	Origins []Text `yaml:"origins" example:"[https://app.example.com]"`
	// Methods. Default: those of the route.
	Methods []strictyaml.Value[Method] `yaml:"methods" example:"[GET, POST]"`
	// Headers that a request may carry.
	Headers []strictyaml.Value[HeaderName] `yaml:"headers"`
	// ExposeHeaders that a script may read.
	ExposeHeaders []strictyaml.Value[HeaderName] `yaml:"expose_headers"`
	// Credentials lets cookies and authorization through.
	Credentials Flag `yaml:"credentials"`
	// MaxAge of a preflight's answer.
	MaxAge Duration `yaml:"max_age"`
}

// Retry says when a request is tried again.
type Retry struct {
	Block
	// Attempts, the first included. Default 2.
	Attempts Number `yaml:"attempts" range:"1..10"`
	// RetryOn lists Envoy's words and three-digit status codes. POST and PATCH are retried only before the upstream saw them, unless they carry an Idempotency-Key. Default [connect-failure, refused-stream].
	RetryOn []Text `yaml:"retry_on" example:"[connect-failure, \"503\"]"`
	// Backoff between attempts.
	Backoff *Backoff `yaml:"backoff" example:"{base: 100ms}"`
}

// Backoff grows from base and is jittered.
type Backoff struct {
	strictyaml.Pos
	// Base of the first pause. Default 25ms.
	Base Duration `yaml:"base"`
	// Max of a pause. Default ten times base.
	Max Duration `yaml:"max"`
}

// Respond is an answer that Envoy gives itself.
type Respond struct {
	strictyaml.Pos
	// Status of the answer. Default 200.
	Status Number `yaml:"status" range:"200..599"`
	// Body of the answer, at most 4 KiB.
	Body Text `yaml:"body"`
	// ContentType of the body. Default text/plain.
	ContentType strictyaml.Value[HeaderValue] `yaml:"content_type"`
}

// Redirect is a redirect that Envoy gives itself.
type Redirect struct {
	strictyaml.Pos
	// Scheme of the target.
	Scheme Text `yaml:"scheme" oneof:"http https"`
	// Host of the target, with a port if need be.
	Host Text `yaml:"host" example:"www.example.com" other:"url to target location"`
	// Path of the target; it may name variables of the template.
	Path strictyaml.Value[paths.Template] `yaml:"path" alt:"path"`
	// Prefix that replaces the matched prefix.
	Prefix strictyaml.Value[paths.Path] `yaml:"prefix" alt:"path"`
	// Code: 301, 302, 303, 307 or 308. Default 302.
	Code Text `yaml:"code" oneof:"301 302 303 307 308"`
	// StripQuery drops the query.
	StripQuery Flag `yaml:"strip_query"`
}

// Rewrite changes what the upstream sees.
type Rewrite struct {
	Block
	// Path replaces the whole path; it may name variables of the template.
	Path strictyaml.Value[paths.Template] `yaml:"path" alt:"rewrite"`
	// Prefix replaces the matched prefix.
	Prefix strictyaml.Value[paths.Path] `yaml:"prefix" alt:"rewrite"`
	// Regex replaces what it matches.
	Regex *RegexRewrite `yaml:"regex" alt:"rewrite"`
	// Host that the upstream sees.
	Host strictyaml.Value[Hostname] `yaml:"host"`
}

// RegexRewrite replaces every match in the path.
type RegexRewrite struct {
	strictyaml.Pos
	// Pattern of RE2.
	Pattern strictyaml.Value[Pattern] `yaml:"pattern,required"`
	// Substitution, with \1 for the first group.
	Substitution Text `yaml:"substitution,required"`
}

// HeaderEdit changes headers.
type HeaderEdit struct {
	Block
	// Set overwrites.
	Set strictyaml.Map[strictyaml.Value[HeaderValue]] `yaml:"set" example:"{x-a: b}"`
	// Add appends.
	Add strictyaml.Map[strictyaml.Value[HeaderValue]] `yaml:"add" example:"{x-a: b}"`
	// Remove takes names and prefixes such as x-internal-*.
	Remove []strictyaml.Value[HeaderPattern] `yaml:"remove" example:"[x-a]"`
}

// Mirror sends a copy of some requests to another upstream.
type Mirror struct {
	Block
	// Upstream that gets the copies; not a split.
	Upstream Identifier `yaml:"upstream"`
	// Percent of the requests. Default 100%.
	Percent Percentage `yaml:"percent"`
}
