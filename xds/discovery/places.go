package discovery

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Places are where instances may be: the gateway sends them requests with
// bodies and identities, from inside. The zero Places allow every address that
// is one machine's.
type Places struct {
	// Allowed are the networks that the gateway file names for a service; none:
	// Default.
	Allowed func(service string) []netip.Prefix
	Default func() []netip.Prefix
	// Parts are the addresses that our own parts listen on, where no service is.
	Parts func() []netip.AddrPort
}

// Machine are this machine's own addresses, the loopback networks included.
func Machine() []netip.Prefix {
	out := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	interfaces, err := net.InterfaceAddrs()
	if err != nil {
		return out // only loopback is sure
	}
	for _, a := range interfaces {
		if network, err := netip.ParsePrefix(a.String()); err == nil {
			ip := network.Addr().Unmap()
			out = append(out, netip.PrefixFrom(ip, ip.BitLen()))
		}
	}
	return out
}

// Private are the networks that no route of the internet leads to (RFC 1918,
// RFC 4193).
func Private() []netip.Prefix {
	return prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
}

// judge says why a service may not be at an address, which is not mapped.
func (p Places) judge(service string, at netip.AddrPort) error {
	if why := nowhere(at.Addr()); why != "" {
		return fmt.Errorf("address %s is %s: write the IP address and port at which proxies reach the instance", at, why)
	}
	if p.Parts != nil {
		for _, part := range p.Parts() {
			if part.Port() == at.Port() && (part.Addr().Unmap() == at.Addr() || part.Addr().IsUnspecified() && within(Machine(), at.Addr())) {
				return fmt.Errorf("address %s is where the gateway itself listens, and no service", at)
			}
		}
	}
	var allowed []netip.Prefix
	if p.Allowed != nil {
		allowed = p.Allowed(service)
	}
	if len(allowed) == 0 && p.Default != nil {
		allowed = p.Default()
	} else if len(allowed) == 0 {
		return nil
	}
	if !within(allowed, at.Addr()) {
		return fmt.Errorf("address %s is in no network where %s may be: add it to discovery.allow of its upstream in the gateway file", at, service)
	}
	return nil
}

func within(networks []netip.Prefix, ip netip.Addr) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(ip) })
}

// nowhere says what an address is that no file can allow; "" when it is one
// machine's.
func nowhere(ip netip.Addr) string {
	switch {
	case ip.IsUnspecified(), ip.Is4() && ip.As4()[0] == 0:
		return "unspecified"
	case ip.IsMulticast():
		return "multicast"
	case ip.IsLinkLocalUnicast():
		return "link-local"
	case ip.Is4() && ip.As4()[0] >= 240:
		return "broadcast or reserved"
	case within(metadata(), ip):
		return "where a cloud tells a machine its secrets"
	case within(disguises(), ip) && !ip.IsLoopback():
		return "an IPv4 address in the clothes of IPv6"
	}
	return ""
}

// metadata are the addresses at which clouds serve credentials to whoever asks
// from the machine, those that are not link-local: Alibaba, Amazon and Google
// over IPv6, Azure, Oracle.
func metadata() []netip.Prefix {
	return prefixes("100.100.100.200/32", "fd00:ec2::254/128", "fd20:ce::254/128", "168.63.129.16/32", "192.0.0.192/32")
}

// disguises are the networks of IPv6 that stand for IPv4, by which a network
// that is refused could be reached under another name: compatible (RFC 4291),
// NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056).
func disguises() []netip.Prefix {
	return prefixes("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16")
}

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(list))
	for _, text := range list {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// Judge sets where instances may be. Those that are elsewhere are dropped, now
// and whenever the answers change.
func (r *Registry) Judge(places Places) {
	r.mu.Lock()
	r.places = places
	r.mu.Unlock()
	r.recheck()
}

// recheck drops the instances that may no longer be where they are.
func (r *Registry) recheck() {
	r.mu.Lock()
	defer r.mu.Unlock()
	dropped := false
	for service, instances := range r.services {
		for id, e := range instances {
			if r.places.judge(service, e.Address) != nil {
				dropped = r.drop(service, id) || dropped
				r.silence.left(service)
			}
		}
	}
	if dropped {
		r.signal()
	}
}

// ServiceOf is the name that a registered name belongs to: a service is also
// registered as NAME-grpc.
func ServiceOf(name string) string { return strings.TrimSuffix(name, "-grpc") }
