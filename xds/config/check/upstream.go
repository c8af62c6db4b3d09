package check

import (
	"cmp"
	"net/netip"
	"slices"

	"tollgate/xds/config/syntax"
)

// endpoints checks a list of endpoints.
func (c *Checker) endpoints(s *syntax.Upstream, path string) {
	if s.Endpoints != nil && len(s.Endpoints) == 0 {
		c.report(s.Pos, path, "is empty: name an endpoint, or write discovery")
	}
	seen := map[netip.AddrPort]bool{}
	var levels []int64
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		address := netip.AddrPort(e.Address.V)
		if address.IsValid() && address.Port() == 0 {
			c.report(e.Address.Pos, path, "%s: an endpoint needs a port", address)
		}
		if address.IsValid() && seen[address] {
			c.report(e.Address.Pos, path, "%s is there twice: give it a weight instead", address)
		}
		seen[address] = true
		levels = append(levels, e.Failover.V)
	}
	slices.Sort(levels)
	for i, level := range slices.Compact(levels) {
		if level != int64(i) {
			c.report(s.Pos, path, "failover %d is used but %d is not: count from 0 without a gap", level, i)
			break
		}
	}
}

// discovery checks that the networks of instances bound somebody: who wrote
// them believes that they do.
func (c *Checker) discovery(s *syntax.Discovery, path string) {
	switch {
	case s == nil || s.Allow == nil:
	case len(s.Allow) == 0:
		c.report(s.Pos, path, "is empty, which allows no less than its absence does: name a network, or remove it")
	case !s.Registry.IsSet() && s.DNS.IsSet():
		c.report(s.Allow[0].Pos, path, "bounds instances that register themselves, and nobody does here: write registry: NAME, or remove allow")
	}
}

// settings checks what an upstream has of its own and inherits.
func (c *Checker) settings(s *syntax.UpstreamSettings, path string) {
	if t := s.TLS; t != nil && !t.Off {
		switch {
		case t.Cert != nil && t.Key != nil:
			c.pair(t.Cert, t.Key, path+".tls.cert")
		case t.Cert != nil || t.Key != nil:
			c.report(t.Pos, path+".tls", "cert and key go together: write both")
		}
	}
	c.balancing(s.LoadBalancing, path+".load_balancing")
	if h := s.HealthCheck; h != nil && !h.Off {
		if !h.Path.IsSet() && !h.GRPC.V && !h.TCP.V {
			c.report(h.Pos, path+".health_check", "says when but not how: write path: /healthz, grpc: true or tcp: true")
		}
		if h.GRPC.V && s.Protocol.V != "grpc" && s.Protocol.V != "http2" {
			c.report(h.GRPC.Pos, path+".health_check.grpc", "needs protocol: grpc or http2")
		}
	}
	if o := s.OutlierDetection; o != nil && !o.Off {
		if !o.FailureRate.IsSet() && !o.Consecutive5xx.IsSet() {
			c.report(o.Pos, path+".outlier_detection", "says when but not what ejects: write failure_rate or consecutive_5xx")
		}
		if o.FailureRate.IsSet() && o.FailureRate.V < 1 {
			c.report(o.FailureRate.Pos, path+".outlier_detection.failure_rate", "must be at least 1%%; to turn ejection off write `outlier_detection: none`")
		}
	}
}

func (c *Checker) balancing(s *syntax.LoadBalancing, path string) {
	if s == nil {
		return
	}
	policy := cmp.Or(s.Policy.V, "round_robin")
	if !slices.Contains([]string{"round_robin", "least_request", "random", "ring_hash", "maglev"}, policy) {
		return // faulty already, and what it was meant to be nobody knows
	}
	hashes := policy == "ring_hash" || policy == "maglev"
	if hashes && !s.HashOn.IsSet() {
		c.report(s.Policy.Pos, path+".policy", "%s needs hash_on: header:X, cookie:X or ip", policy)
	}
	if !hashes && s.HashOn.IsSet() {
		c.report(s.HashOn.Pos, path+".hash_on", "%s hashes nothing: write policy: ring_hash or maglev, or remove hash_on", policy)
	}
	if s.SlowStart.IsSet() && policy != "round_robin" && policy != "least_request" {
		c.report(s.SlowStart.Pos, path+".slow_start", "%s has no slow start: round_robin and least_request have", policy)
	}
}

// split checks that a split leaves to its members what is theirs, and that
// somebody gets the requests.
func (c *Checker) split(s *syntax.Upstream, path string) {
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
			c.report(s.Pos, path+"."+own.key, "a split has no %s of its own: write it on its members", own.key)
		}
	}
	if !slices.ContainsFunc(s.Split, func(m syntax.SplitMember) bool { return m.Weight.V > 0 || !m.Weight.IsSet() }) {
		c.report(s.Pos, path+".split", "no member has a weight above 0, so nobody gets the requests")
	}
	if k := s.Sticky; k != nil && !k.Off {
		switch {
		case k.Cookie.IsSet():
		case !k.Header.IsSet():
			c.report(k.Pos, path+".sticky", "write cookie: NAME or header: NAME")
		case k.TTL.IsSet():
			c.report(k.TTL.Pos, path+".sticky.ttl", "belongs to a cookie: a header is hashed each time")
		}
	}
}
