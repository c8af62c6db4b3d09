package upstream

import (
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"tollgate/api/contract"
	"tollgate/xds/compile/field"
	"tollgate/xds/config"
)

// systemRoots is where Debian and Envoy's own images keep the authorities.
// Without a file Envoy would verify nothing.
const systemRoots = "/etc/ssl/certs/ca-certificates.crt"

// SecretName names the client certificate of an upstream.
func SecretName(name string) string { return "upstream/" + name }

func transportSocket(u *config.Upstream) *corev3.TransportSocket {
	roots := &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: systemRoots}}
	if u.TLS.CA != nil {
		roots = field.Inline(u.TLS.CA.Text)
	}
	names := serverNames(u)
	common := &tlsv3.CommonTlsContext{
		ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: roots, MatchTypedSubjectAltNames: sanMatchers(names),
		}},
		AlpnProtocols: []string{"http/1.1"},
	}
	if u.Protocol != config.HTTP1 {
		common.AlpnProtocols = []string{"h2"}
	}
	if u.TLS.Cert != nil {
		common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{{Name: SecretName(u.Name), SdsConfig: field.ADS(0)}}
	}
	return &corev3.TransportSocket{
		Name:       "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: field.Any(&tlsv3.UpstreamTlsContext{CommonTlsContext: common, Sni: sni(u, names)})},
	}
}

// ownSocket is how proxies meet our own servers of a role in a fleet: by the two
// files that every proxy has, and by the name in the server's certificate.
func ownSocket(trustDomain, role string) *corev3.TransportSocket {
	file := func(name string) *corev3.ConfigSource {
		return &corev3.ConfigSource{
			ResourceApiVersion: corev3.ApiVersion_V3,
			ConfigSourceSpecifier: &corev3.ConfigSource_PathConfigSource{PathConfigSource: &corev3.PathConfigSource{
				Path: contract.ProxyIdentity + "/" + name, WatchedDirectory: &corev3.WatchedDirectory{Path: contract.ProxyIdentity},
			}},
		}
	}
	return &corev3.TransportSocket{
		Name: "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: field.Any(&tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams:                      &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3},
			AlpnProtocols:                  []string{"h2"},
			TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: contract.SecretCertificate, SdsConfig: file(contract.ProxyCertificate)}},
			ValidationContextType: &tlsv3.CommonTlsContext_CombinedValidationContext{CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext: &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{
					SanType: tlsv3.SubjectAltNameMatcher_URI,
					Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: contract.SPIFFE(trustDomain, role)}},
				}}},
				ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: contract.SecretRoots, SdsConfig: file(contract.ProxyRoots)},
			}},
		}})},
	}
}

// serverNames are the names of which the certificate must carry one: the
// written one, else the endpoints' own. Instances of a registry come and go,
// so their certificate carries the name of their service.
func serverNames(u *config.Upstream) []string {
	switch {
	case u.TLS.SAN != "":
		return []string{u.TLS.SAN}
	case u.DNS != "":
		host, _ := SplitHostPort(u.DNS)
		return []string{host}
	case u.Registry != "":
		return []string{u.Registry}
	}
	var names []string
	for _, e := range u.Endpoints {
		names = append(names, e.Address.Addr().String())
	}
	return names
}

func sanMatchers(names []string) []*tlsv3.SubjectAltNameMatcher {
	out := make([]*tlsv3.SubjectAltNameMatcher, 0, len(names))
	for _, name := range names {
		kind := tlsv3.SubjectAltNameMatcher_DNS
		if strings.Contains(name, "://") {
			kind = tlsv3.SubjectAltNameMatcher_URI
		} else if isIP(name) {
			kind = tlsv3.SubjectAltNameMatcher_IP_ADDRESS
		}
		out = append(out, &tlsv3.SubjectAltNameMatcher{SanType: kind, Matcher: field.Exact(name)})
	}
	return out
}

// sni sends the written name, else the first that is a host name: addresses
// and URIs are not allowed there.
func sni(u *config.Upstream, names []string) string {
	if u.TLS.SNI != "" {
		return u.TLS.SNI
	}
	if u.DNS != "" {
		names = append([]string{strings.Split(u.DNS, ":")[0]}, names...)
	}
	for _, name := range names {
		if !isIP(name) && !strings.Contains(name, "://") {
			return name
		}
	}
	return ""
}

func isIP(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil
}
