package config

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"tollgate/internal/strictyaml"
	"tollgate/xds/config/syntax"
)

// reservedPrefix begins the names of the gateway's own clusters.
const reservedPrefix = "tollgate-"

func (b *builder) allUpstreams(files []*syntax.File, defaults *syntax.UpstreamSettings, g *Gateway) {
	seen := map[string]strictyaml.Pos{}
	for _, f := range files {
		for i := range f.Upstreams {
			s := &f.Upstreams[i]
			name := string(s.Name.V)
			path := index("upstreams", name, i)
			if strings.HasPrefix(name, reservedPrefix) {
				b.fault(s.Name.Pos, path, "names that begin with %s are the gateway's own", reservedPrefix)
			}
			if b.unique(seen, s.Name.Pos, path, name) {
				b.upstreams[name] = s
				b.names.upstreams = append(b.names.upstreams, name)
			}
		}
	}
	for _, f := range files {
		for i := range f.Upstreams {
			s := &f.Upstreams[i]
			path := index("upstreams", string(s.Name.V), i)
			if s.Split != nil {
				g.Upstreams = append(g.Upstreams, b.split(s, path))
				continue
			}
			if s.Sticky != nil && !s.Sticky.Off {
				b.fault(s.Sticky.Pos, path+".sticky", "only a split is sticky; for one upstream write load_balancing: {policy: ring_hash, hash_on: …}")
			}
			g.Upstreams = append(g.Upstreams, b.upstream(s, defaults, path))
		}
	}
}

func (b *builder) upstream(s *syntax.Upstream, defaults *syntax.UpstreamSettings, path string) Upstream {
	u := Upstream{Pos: Pos(s.Pos), Name: string(s.Name.V), Endpoints: b.endpoints(s, path+".endpoints")}
	if d := s.Discovery; d != nil {
		u.Registry, u.DNS = string(d.Registry.V), string(d.DNS.V)
	}
	set := s.UpstreamSettings
	if defaults != nil {
		set = syntax.Merge(b.merger, *defaults, set)
	}
	switch set.Protocol.V {
	case "http2":
		u.Protocol = HTTP2
	case "grpc":
		u.Protocol = GRPC
	}
	if t := set.TLS; t != nil && !t.Off {
		u.TLS = b.upstreamTLS(t, path+".tls")
	}
	u.ConnectTimeout = or(set.ConnectTimeout, time.Second, span)
	u.Balancing = b.balancing(set.LoadBalancing, path+".load_balancing")
	u.HealthCheck = b.healthCheck(set.HealthCheck, u.Protocol, path+".health_check")
	u.Outlier = b.outlier(set.OutlierDetection, path+".outlier_detection")
	u.Breaker = breaker(nil)
	if c := set.CircuitBreaker; c != nil {
		u.Breaker = breaker(&c.Thresholds)
		if c.High != nil {
			high := breaker(c.High)
			u.BreakerHigh = &high
		}
	}
	return u
}

func (b *builder) endpoints(s *syntax.Upstream, path string) []Endpoint {
	if s.Endpoints != nil && len(s.Endpoints) == 0 {
		b.fault(s.Pos, path, "is empty: name an endpoint, or write discovery")
	}
	var out []Endpoint
	seen := map[netip.AddrPort]bool{}
	var levels []int64
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		address := netip.AddrPort(e.Address.V)
		if !address.IsValid() {
			continue
		}
		if address.Port() == 0 {
			b.fault(e.Address.Pos, path, "%s: an endpoint needs a port", address)
		}
		if seen[address] {
			b.fault(e.Address.Pos, path, "%s is there twice: give it a weight instead", address)
		}
		seen[address] = true
		levels = append(levels, e.Failover.V)
		out = append(out, Endpoint{Address: address, Weight: or(e.Weight, 1, number), Zone: e.Zone.V, Failover: number(e.Failover.V)})
	}
	slices.Sort(levels)
	for i, level := range slices.Compact(levels) {
		if level != int64(i) {
			b.fault(s.Pos, path, "failover %d is used but %d is not: count from 0 without a gap", level, i)
			break
		}
	}
	return out
}

func (b *builder) upstreamTLS(s *syntax.UpstreamTLS, path string) *UpstreamTLS {
	t := &UpstreamTLS{CA: content(s.CA), SAN: s.SAN.V, SNI: s.SNI.V}
	switch {
	case s.Cert != nil && s.Key != nil:
		pair := b.cert(s.Cert, s.Key, path+".cert")
		t.Cert = &pair
	case s.Cert != nil || s.Key != nil:
		b.fault(s.Pos, path, "cert and key go together: write both")
	}
	return t
}

func (b *builder) balancing(s *syntax.LoadBalancing, path string) Balancing {
	out := Balancing{Policy: "round_robin"}
	if s == nil {
		return out
	}
	out = Balancing{Policy: or(s.Policy, out.Policy, itself), HashOn: string(s.HashOn.V), SlowStart: s.SlowStart.V.D(), Zones: s.Zones.V}
	hashes := out.Policy == "ring_hash" || out.Policy == "maglev"
	if hashes && !s.HashOn.IsSet() {
		b.fault(s.Policy.Pos, path+".policy", "%s needs hash_on: header:X, cookie:X or ip", out.Policy)
	}
	if !hashes && s.HashOn.IsSet() {
		b.fault(s.HashOn.Pos, path+".hash_on", "%s hashes nothing: write policy: ring_hash or maglev, or remove hash_on", out.Policy)
	}
	if s.SlowStart.IsSet() && out.Policy != "round_robin" && out.Policy != "least_request" {
		b.fault(s.SlowStart.Pos, path+".slow_start", "%s has no slow start: round_robin and least_request have", out.Policy)
	}
	return out
}

func (b *builder) healthCheck(s *syntax.HealthCheck, protocol Protocol, path string) *HealthCheck {
	if s == nil || s.Off {
		return nil
	}
	h := &HealthCheck{
		Path: string(s.Path.V), GRPC: s.GRPC.V, TCP: s.TCP.V,
		Interval: or(s.Interval, 5*time.Second, span), Timeout: or(s.Timeout, time.Second, span),
		Healthy: or(s.HealthyThreshold, 2, number), Unhealthy: or(s.UnhealthyThreshold, 2, number),
	}
	if !s.Path.IsSet() && !h.GRPC && !h.TCP {
		b.fault(s.Pos, path, "says when but not how: write path: /healthz, grpc: true or tcp: true")
	}
	if h.GRPC && protocol == HTTP1 {
		b.fault(s.GRPC.Pos, path+".grpc", "needs protocol: grpc or http2")
	}
	return h
}

func (b *builder) outlier(s *syntax.OutlierDetection, path string) *Outlier {
	if s == nil || s.Off {
		return nil
	}
	o := &Outlier{
		FailureRate: wholePercent(s.FailureRate.V), MinRequests: or(s.MinRequests, 10, number),
		Consecutive5xx: number(s.Consecutive5xx.V), Interval: or(s.Interval, 10*time.Second, span),
		EjectFor: or(s.EjectFor, 30*time.Second, span), MaxEjected: or(s.MaxEjected, 50, wholePercent),
	}
	if !s.FailureRate.IsSet() && !s.Consecutive5xx.IsSet() {
		b.fault(s.Pos, path, "says when but not what ejects: write failure_rate or consecutive_5xx")
	}
	if s.FailureRate.IsSet() && o.FailureRate == 0 && s.FailureRate.V >= 0 {
		b.fault(s.FailureRate.Pos, path+".failure_rate", "would eject every endpoint: write at least 1%%, or `outlier_detection: none`")
	}
	return o
}

func breaker(s *syntax.Thresholds) Breaker {
	if s == nil {
		s = &syntax.Thresholds{}
	}
	return Breaker{
		MaxConnections: or(s.MaxConnections, 1024, number), MaxPending: or(s.MaxPending, 1024, number),
		MaxRequests: or(s.MaxRequests, 1024, number), RetryBudget: or(s.RetryBudget, 20, percent),
	}
}

// split checks that its members are real and that somebody gets the requests.
func (b *builder) split(s *syntax.Upstream, path string) Upstream {
	u := Upstream{Pos: Pos(s.Pos), Name: string(s.Name.V)}
	set := &s.UpstreamSettings
	for _, own := range []struct {
		key     string
		written bool
	}{
		{"protocol", set.Protocol.IsSet()},
		{"tls", set.TLS != nil},
		{"load_balancing", set.LoadBalancing != nil},
		{"connect_timeout", set.ConnectTimeout.IsSet()},
		{"health_check", set.HealthCheck != nil},
		{"circuit_breaker", set.CircuitBreaker != nil},
		{"outlier_detection", set.OutlierDetection != nil},
	} {
		if own.written {
			b.fault(s.Pos, path+"."+own.key, "a split has none of its own: write it on its members")
		}
	}
	taken := false
	seen := map[string]bool{}
	for _, m := range s.Split {
		name := string(m.Upstream.V)
		at := path + ".split[" + name + "]"
		member := b.upstreams[name]
		switch {
		case name == "":
		case name == u.Name:
			b.fault(m.Upstream.Pos, at, "a split cannot be its own member")
		case member == nil:
			b.unknown(m.Upstream.Pos, at, "upstream", name, b.names.upstreams)
		case member.Split != nil:
			b.fault(m.Upstream.Pos, at, "%q is a split itself: name its members here, with their weights", name)
		case seen[name]:
			b.fault(m.Upstream.Pos, at, "%q is there twice: add up its weights", name)
		}
		seen[name] = true
		taken = taken || m.Weight.V > 0 || !m.Weight.IsSet()
		u.Split = append(u.Split, SplitMember{Upstream: name, Weight: number(m.Weight.V)})
	}
	if !taken {
		b.fault(s.Pos, path+".split", "no member has a weight above 0, so nobody gets the requests")
	}
	u.Sticky = b.sticky(s.Sticky, path+".sticky")
	return u
}

func (b *builder) sticky(s *syntax.Sticky, path string) *Sticky {
	if s == nil || s.Off {
		return nil
	}
	out := &Sticky{Cookie: string(s.Cookie.V), Header: string(s.Header.V)}
	switch {
	case s.Cookie.IsSet():
		out.TTL = or(s.TTL, time.Hour, span)
	case !s.Header.IsSet():
		b.fault(s.Pos, path, "write cookie: NAME or header: NAME")
	case s.TTL.IsSet():
		b.fault(s.TTL.Pos, path+".ttl", "belongs to a cookie: a header is hashed each time")
	}
	return out
}
