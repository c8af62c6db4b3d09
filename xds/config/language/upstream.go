package language

import (
	"net/netip"
	"time"

	"tollgate/xds/config"
	"tollgate/xds/config/inherit"
	"tollgate/xds/config/syntax"
)

func upstream(in *inherit.Upstream) config.Upstream {
	s, set := in.Own, &in.Settings
	u := config.Upstream{Pos: config.Pos(s.Pos), Name: in.Name}
	if s.Split != nil {
		split(s, &u)
		return u
	}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		u.Endpoints = append(u.Endpoints, config.Endpoint{
			Address: netip.AddrPort(e.Address.V), Weight: or(e.Weight, 1, number), Zone: e.Zone.V, Failover: number(e.Failover.V),
		})
	}
	if d := s.Discovery; d != nil {
		u.Registry, u.DNS = string(d.Registry.V), string(d.DNS.V)
		for _, network := range d.Allow {
			u.Allow = append(u.Allow, netip.Prefix(network.V))
		}
	}
	switch set.Protocol.V {
	case "http2":
		u.Protocol = config.HTTP2
	case "grpc":
		u.Protocol = config.GRPC
	}
	u.TLS = upstreamTLS(set.TLS)
	u.ConnectTimeout = or(set.ConnectTimeout, time.Second, span)
	u.Balancing = config.Balancing{Policy: "round_robin"}
	if l := set.LoadBalancing; l != nil {
		u.Balancing = config.Balancing{Policy: or(l.Policy, "round_robin", itself), HashOn: string(l.HashOn.V), SlowStart: l.SlowStart.V.D(), Zones: l.Zones.V}
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

func split(s *syntax.Upstream, u *config.Upstream) {
	for _, m := range s.Split {
		u.Split = append(u.Split, config.SplitMember{Upstream: string(m.Upstream.V), Weight: number(m.Weight.V)})
	}
	if k := s.Sticky; k != nil && !k.Off {
		u.Sticky = &config.Sticky{Cookie: string(k.Cookie.V), Header: string(k.Header.V)}
		if k.Cookie.IsSet() {
			u.Sticky.TTL = or(k.TTL, time.Hour, span)
		}
	}
}

func upstreamTLS(s *syntax.UpstreamTLS) *config.UpstreamTLS {
	if s == nil || s.Off {
		return nil
	}
	t := &config.UpstreamTLS{CA: content(s.CA), SAN: s.SAN.V, SNI: s.SNI.V}
	if s.Cert != nil && s.Key != nil {
		t.Cert = &config.Cert{Cert: *content(s.Cert), Key: *content(s.Key)}
	}
	return t
}

func healthCheck(s *syntax.HealthCheck) *config.HealthCheck {
	if s == nil || s.Off {
		return nil
	}
	return &config.HealthCheck{
		Path: string(s.Path.V), GRPC: s.GRPC.V, TCP: s.TCP.V,
		Interval: or(s.Interval, 5*time.Second, span), Timeout: or(s.Timeout, time.Second, span),
		Healthy: or(s.HealthyThreshold, 2, number), Unhealthy: or(s.UnhealthyThreshold, 2, number),
	}
}

func outlier(s *syntax.OutlierDetection) *config.Outlier {
	if s == nil || s.Off {
		return nil
	}
	return &config.Outlier{
		FailureRate: wholePercent(s.FailureRate.V), MinRequests: or(s.MinRequests, 10, number),
		Consecutive5xx: number(s.Consecutive5xx.V), Interval: or(s.Interval, 10*time.Second, span),
		EjectFor: or(s.EjectFor, 30*time.Second, span), MaxEjected: or(s.MaxEjected, 50, wholePercent),
	}
}

func breaker(s *syntax.Thresholds) config.Breaker {
	if s == nil {
		s = &syntax.Thresholds{}
	}
	return config.Breaker{
		MaxConnections: or(s.MaxConnections, 1024, number), MaxPending: or(s.MaxPending, 1024, number),
		MaxRequests: or(s.MaxRequests, 1024, number), RetryBudget: or(s.RetryBudget, 20, percent),
	}
}
