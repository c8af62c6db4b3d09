package config

import (
	"net/netip"
	"strings"
	"time"

	"tollgate/internal/strictyaml"
	"tollgate/xds/config/check"
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
	u := Upstream{Pos: Pos(s.Pos), Name: string(s.Name.V)}
	check.Endpoints(b.fault, s, path+".endpoints")
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		u.Endpoints = append(u.Endpoints, Endpoint{
			Address: netip.AddrPort(e.Address.V), Weight: or(e.Weight, 1, number), Zone: e.Zone.V, Failover: number(e.Failover.V),
		})
	}
	if d := s.Discovery; d != nil {
		u.Registry, u.DNS = string(d.Registry.V), string(d.DNS.V)
	}
	set := s.UpstreamSettings
	if defaults != nil {
		set = syntax.Merge(b.merger, *defaults, set)
	}
	check.Settings(b.fault, &set, path)
	switch set.Protocol.V {
	case "http2":
		u.Protocol = HTTP2
	case "grpc":
		u.Protocol = GRPC
	}
	u.TLS = upstreamTLS(set.TLS)
	u.ConnectTimeout = or(set.ConnectTimeout, time.Second, span)
	u.Balancing = Balancing{Policy: "round_robin"}
	if l := set.LoadBalancing; l != nil {
		u.Balancing = Balancing{Policy: or(l.Policy, "round_robin", itself), HashOn: string(l.HashOn.V), SlowStart: l.SlowStart.V.D(), Zones: l.Zones.V}
	}
	u.HealthCheck = healthCheck(set.HealthCheck)
	u.Outlier = outlier(set.OutlierDetection)
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

func upstreamTLS(s *syntax.UpstreamTLS) *UpstreamTLS {
	if s == nil || s.Off {
		return nil
	}
	t := &UpstreamTLS{CA: content(s.CA), SAN: s.SAN.V, SNI: s.SNI.V}
	if s.Cert != nil && s.Key != nil {
		t.Cert = &Cert{Cert: *content(s.Cert), Key: *content(s.Key)}
	}
	return t
}

func healthCheck(s *syntax.HealthCheck) *HealthCheck {
	if s == nil || s.Off {
		return nil
	}
	return &HealthCheck{
		Path: string(s.Path.V), GRPC: s.GRPC.V, TCP: s.TCP.V,
		Interval: or(s.Interval, 5*time.Second, span), Timeout: or(s.Timeout, time.Second, span),
		Healthy: or(s.HealthyThreshold, 2, number), Unhealthy: or(s.UnhealthyThreshold, 2, number),
	}
}

func outlier(s *syntax.OutlierDetection) *Outlier {
	if s == nil || s.Off {
		return nil
	}
	return &Outlier{
		FailureRate: wholePercent(s.FailureRate.V), MinRequests: or(s.MinRequests, 10, number),
		Consecutive5xx: number(s.Consecutive5xx.V), Interval: or(s.Interval, 10*time.Second, span),
		EjectFor: or(s.EjectFor, 30*time.Second, span), MaxEjected: or(s.MaxEjected, 50, wholePercent),
	}
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

// split checks that its members are real.
func (b *builder) split(s *syntax.Upstream, path string) Upstream {
	u := Upstream{Pos: Pos(s.Pos), Name: string(s.Name.V)}
	check.Split(b.fault, s, path)
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
			b.unknown(m.Upstream, at, "upstream", b.names.upstreams)
		case member.Split != nil:
			b.fault(m.Upstream.Pos, at, "%q is a split itself: name its members here, with their weights", name)
		case seen[name]:
			b.fault(m.Upstream.Pos, at, "%q is there twice: add up its weights", name)
		}
		seen[name] = true
		u.Split = append(u.Split, SplitMember{Upstream: name, Weight: number(m.Weight.V)})
	}
	if k := s.Sticky; k != nil && !k.Off {
		u.Sticky = &Sticky{Cookie: string(k.Cookie.V), Header: string(k.Header.V)}
		if k.Cookie.IsSet() {
			u.Sticky.TTL = or(k.TTL, time.Hour, span)
		}
	}
	return u
}
