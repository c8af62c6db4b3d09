package language

import (
	"net/netip"

	"tollgate/internal/strictyaml"
	"tollgate/xds/config"
	"tollgate/xds/config/syntax"
)

func listener(s *syntax.Listener) config.Listener {
	l := config.Listener{
		Pos: config.Pos(s.Pos), Name: string(s.Name.V), Address: netip.AddrPort(s.Address.V),
		RedirectHTTPS: s.Redirect.IsSet(), Plaintext: s.Plaintext.V,
	}
	if s.TLS != nil {
		l.TLS = listenerTLS(s.TLS)
	}
	if s.Flood != nil {
		l.Flood = &config.Flood{Limit: number(s.Flood.Limit.V), Per: s.Flood.Per.V.Length}
	}
	if s.TrustedProxies != nil {
		for _, from := range s.TrustedProxies.From {
			l.TrustedProxies = append(l.TrustedProxies, netip.Prefix(from.V))
		}
	}
	return l
}

func listenerTLS(s *syntax.ListenerTLS) *config.ListenerTLS {
	t := &config.ListenerTLS{MinVersion: or(s.MinVersion, "1.2", itself), HSTS: s.HSTS.V.D(), ClientCA: content(s.ClientCA)}
	for i := range s.Certs {
		t.Certs = append(t.Certs, config.Cert{Cert: *content(&s.Certs[i].Cert), Key: *content(&s.Certs[i].Key)})
	}
	return t
}

func content(c *syntax.Content) *config.Content {
	if c == nil {
		return nil
	}
	return &config.Content{Ref: c.Ref, Text: c.Text}
}

// openPorts refuses two listeners on one address.
func (b *builder) openPorts(listeners []config.Listener) {
	byPort := map[uint16][]config.Listener{}
	for _, l := range listeners {
		port := l.Address.Port()
		if port == 0 {
			continue
		}
		for _, other := range byPort[port] {
			if other.Address == l.Address || other.Address.Addr().IsUnspecified() || l.Address.Addr().IsUnspecified() {
				b.fault(strictyaml.Pos(l.Pos), "listeners["+l.Name+"]"+".address", "%s is taken by listener %q (%s)", l.Address, other.Name, other.Address)
				break
			}
		}
		byPort[port] = append(byPort[port], l)
	}
}

// plaintext refuses to carry credentials over a network in the clear.
func (b *builder) plaintext(g *config.Gateway) {
	secure := false
	for _, l := range g.Listeners {
		secure = secure || l.TLS != nil
	}
	for _, l := range g.Listeners {
		path := "listeners[" + l.Name + "]"
		if l.RedirectHTTPS && !secure {
			b.fault(strictyaml.Pos(l.Pos), path+".redirect", "no listener has tls, so https leads nowhere")
		}
		if l.TLS != nil || l.RedirectHTTPS || l.Plaintext || !l.Address.IsValid() || l.Address.Addr().IsLoopback() {
			continue
		}
		for _, r := range g.Routes {
			if r.Auth.Mode != config.AuthPublic && r.Auth.Mode != 0 && !b.doubts.auth[r] && serves(r, l.Name) {
				b.fault(strictyaml.Pos(l.Pos), path, "%s is not loopback and has no tls, but serves routes[%s], which takes credentials: add tls, or write plaintext: true", l.Address, r.Name)
				break
			}
		}
	}
	if len(g.Routes) > 0 && len(g.Listeners) == 0 && !b.doubts.under["listeners"] {
		b.fault(strictyaml.Pos(g.Routes[0].Pos), "listeners", "there are routes but no listener: write one, such as {name: http, address: 127.0.0.1:8080}")
	}
}

func serves(r *config.Route, listener string) bool {
	if len(r.Listeners) == 0 {
		return true
	}
	for _, l := range r.Listeners {
		if l == listener {
			return true
		}
	}
	return false
}
