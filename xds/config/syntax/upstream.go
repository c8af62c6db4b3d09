package syntax

import (
	"fmt"

	"tollgate/internal/strictyaml"
	"tollgate/xds/config/paths"
)

// Upstream is a service behind the gateway: its endpoints, or a split over other upstreams.
type Upstream struct {
	strictyaml.Pos
	// Name of the upstream, for `upstream:` of a route.
	Name Identifier `yaml:"name,required"`
	// Endpoints are its instances: IP:port, or a mapping.
	Endpoints []Endpoint `yaml:"endpoints" alt:"source!" example:"[127.0.0.1:9201]" other:"address addresses"`
	// Discovery finds its instances.
	Discovery *Discovery `yaml:"discovery" alt:"source!" example:"{dns: api.internal:8080}" other:"url host dns registry"`
	// Split shares its requests among other upstreams by weight.
	Split []SplitMember `yaml:"split" alt:"source!" example:"[{upstream: a, weight: 9}, {upstream: b, weight: 1}]"`
	// Sticky keeps a client on the member of a split it first got.
	Sticky           *Sticky `yaml:"sticky" example:"{cookie: canary}"`
	UpstreamSettings `yaml:",inline"`
}

// UpstreamSettings are what upstreams inherit from defaults.upstream.
type UpstreamSettings struct {
	strictyaml.Pos
	// Protocol of the endpoints. Default http1.
	Protocol Text `yaml:"protocol" oneof:"http1 http2 grpc"`
	// TLS to the endpoints; `{}` verifies with the system's roots and the endpoint's name.
	TLS *UpstreamTLS `yaml:"tls" example:"{}"`
	// LoadBalancing chooses among the endpoints. Default round_robin.
	LoadBalancing *LoadBalancing `yaml:"load_balancing" example:"{policy: least_request}"`
	// ConnectTimeout of a connection. Default 1s.
	ConnectTimeout Duration `yaml:"connect_timeout"`
	// HealthCheck asks the endpoints whether they are well. None unless set.
	HealthCheck *HealthCheck `yaml:"health_check" example:"{path: /healthz}"`
	// CircuitBreaker bounds what one proxy has open. Default 1024 of each and a retry budget of 20%.
	CircuitBreaker *CircuitBreaker `yaml:"circuit_breaker" example:"{max_requests: 1024}"`
	// OutlierDetection ejects endpoints that fail. None unless set.
	OutlierDetection *OutlierDetection `yaml:"outlier_detection" example:"{consecutive_5xx: 5}"`
}

// Endpoint is one instance.
type Endpoint struct {
	strictyaml.Pos
	// Address is IP:port.
	Address strictyaml.Value[EndpointAddress] `yaml:"address,required"`
	// Weight against the other endpoints. Default 1.
	Weight Number `yaml:"weight" range:"1..128"`
	// Zone it runs in.
	Zone Text `yaml:"zone"`
	// Failover: endpoints with 0 are used first, those with 1 when too few of them are well. Default 0.
	Failover Number `yaml:"failover" range:"0..16"`
}

// Shorthand takes an address.
func (e *Endpoint) Shorthand(s strictyaml.Scalar) error {
	e.Address.Locate(e.Pos)
	return e.Address.Set(s)
}

// Discovery finds the instances of an upstream.
type Discovery struct {
	strictyaml.Pos
	// Registry is the name under which instances register at the control plane.
	Registry Identifier `yaml:"registry" alt:"discovery!"`
	// Allow are the networks where registered instances may be; only beside registry. Default: this machine's own addresses when its parts meet on sockets, else the private networks.
	Allow []strictyaml.Value[Network] `yaml:"allow" example:"[10.0.0.0/8]"`
	// DNS is host:port; every address of the host is an instance.
	DNS strictyaml.Value[HostPort] `yaml:"dns" alt:"discovery!"`

	Consul   strictyaml.Later `yaml:"consul"`
	Zone     strictyaml.Later `yaml:"zone"`
	Failover strictyaml.Later `yaml:"failover"`
}

// SplitMember is a share of a split.
type SplitMember struct {
	strictyaml.Pos
	// Upstream that takes the share; it is not a split itself.
	Upstream Identifier `yaml:"upstream,required"`
	// Weight of any sum; 0 takes nobody.
	Weight Number `yaml:"weight,required" range:"0..1000000"`
}

// Sticky keeps a client on one member of a split.
type Sticky struct {
	Block
	// Cookie in which the first answer names the member.
	Cookie Identifier `yaml:"cookie" alt:"sticky"`
	// TTL of the cookie. Default 1h.
	TTL Duration `yaml:"ttl"`
	// Header whose hash chooses the member, by weight.
	Header strictyaml.Value[HeaderName] `yaml:"header" alt:"sticky"`
}

// UpstreamTLS is how an upstream is verified, always.
type UpstreamTLS struct {
	Block
	// CA that signs the endpoints' certificates. Default: the system's roots.
	CA *Content `yaml:"ca"`
	// SAN that the certificate must carry. Default: the endpoint's name.
	SAN Text `yaml:"san"`
	// SNI to send.
	SNI Text `yaml:"sni"`
	// Cert to show the upstream.
	Cert *Content `yaml:"cert"`
	// Key of cert.
	Key *Content `yaml:"key"`
}

// LoadBalancing chooses among endpoints.
type LoadBalancing struct {
	strictyaml.Pos
	// Policy. ring_hash and maglev need hash_on.
	Policy Text `yaml:"policy" oneof:"round_robin least_request random ring_hash maglev"`
	// HashOn is what ring_hash and maglev hash: header:X, cookie:X or ip.
	HashOn strictyaml.Value[HashOn] `yaml:"hash_on"`
	// SlowStart lets a new endpoint warm up; for round_robin and least_request.
	SlowStart Duration `yaml:"slow_start"`
	// Zones prefers endpoints of the proxy's own zone.
	Zones Flag `yaml:"zones"`
}

// HealthCheck asks the endpoints whether they are well.
type HealthCheck struct {
	Block
	// Path asked over HTTP; 200 is well.
	Path strictyaml.Value[paths.Path] `yaml:"path" alt:"check"`
	// GRPC asks grpc.health.v1.
	GRPC Flag `yaml:"grpc" alt:"check"`
	// TCP only connects.
	TCP Flag `yaml:"tcp" alt:"check"`
	// Interval between checks. Default 5s.
	Interval Duration `yaml:"interval"`
	// Timeout of a check. Default 1s.
	Timeout Duration `yaml:"timeout"`
	// HealthyThreshold is how many good answers bring an endpoint back. Default 2.
	HealthyThreshold Number `yaml:"healthy_threshold" range:"1..1000"`
	// UnhealthyThreshold is how many bad answers take it out. Default 2.
	UnhealthyThreshold Number `yaml:"unhealthy_threshold" range:"1..1000"`
}

// CircuitBreaker bounds what one proxy may have open to an upstream.
type CircuitBreaker struct {
	strictyaml.Pos
	Thresholds `yaml:",inline"`
	// High are the thresholds of routes with `importance: high`.
	High *Thresholds `yaml:"high"`
}

// Thresholds of a circuit breaker.
type Thresholds struct {
	strictyaml.Pos
	// MaxConnections open. Default 1024.
	MaxConnections Number `yaml:"max_connections" range:"1..4294967295"`
	// MaxPending requests that wait for a connection. Default 1024.
	MaxPending Number `yaml:"max_pending" range:"1..4294967295"`
	// MaxRequests in flight. Default 1024.
	MaxRequests Number `yaml:"max_requests" range:"1..4294967295"`
	// RetryBudget is the share of the requests in flight that may be retries. Default 20%.
	RetryBudget Percentage `yaml:"retry_budget"`
}

// OutlierDetection ejects endpoints that fail, for a while.
type OutlierDetection struct {
	Block
	// FailureRate of an interval's requests that ejects.
	FailureRate Percentage `yaml:"failure_rate"`
	// MinRequests in an interval before the rate counts. Default 10.
	MinRequests Number `yaml:"min_requests" range:"1..4294967295"`
	// Consecutive5xx answers that eject.
	Consecutive5xx Number `yaml:"consecutive_5xx" range:"1..4294967295"`
	// Interval of counting. Default 10s.
	Interval Duration `yaml:"interval"`
	// EjectFor is how long, times the ejections so far. Default 30s.
	EjectFor Duration `yaml:"eject_for"`
	// MaxEjected is the share of endpoints that may be out at once. Default 50%.
	MaxEjected Percentage `yaml:"max_ejected"`
}

// Timeout bounds a request, its retries included: a duration, `none`, or a mapping.
type Timeout struct {
	Block
	whole bool
	// Default for methods without a value of their own. 15s unless set; `none` for streams.
	Default strictyaml.Value[SpanOrNone] `yaml:"default"`
	// Get is for GET.
	Get strictyaml.Value[SpanOrNone] `yaml:"get"`
	// Head is for HEAD; that of GET unless set.
	Head strictyaml.Value[SpanOrNone] `yaml:"head"`
	// Post is for POST.
	Post strictyaml.Value[SpanOrNone] `yaml:"post"`
	// Put is for PUT.
	Put strictyaml.Value[SpanOrNone] `yaml:"put"`
	// Patch is for PATCH.
	Patch strictyaml.Value[SpanOrNone] `yaml:"patch"`
	// Delete is for DELETE.
	Delete strictyaml.Value[SpanOrNone] `yaml:"delete"`
	// Options is for OPTIONS.
	Options strictyaml.Value[SpanOrNone] `yaml:"options"`
	// PerTry bounds each attempt. Unless set: what the timeout leaves after the worst back-off, shared by the attempts.
	PerTry Duration `yaml:"per_try"`
}

// Shorthand takes a duration, which clears the rest, or none.
func (t *Timeout) Shorthand(s strictyaml.Scalar) error {
	t.whole = true
	t.Off = s.Written == none
	t.Default.Locate(t.Pos)
	if err := t.Default.Set(s); err != nil {
		return fmt.Errorf("must be a duration such as 10s, `none`, or a mapping, not %q", strictyaml.Clip([]byte(s.Written)))
	}
	return nil
}

// Replaces reports whether outer levels are forgotten.
func (t *Timeout) Replaces() bool { return t.whole }
