package compile

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"tollgate/xds/compile/field"
	"tollgate/xds/compile/upstream"
	"tollgate/xds/config"
)

// downstreamTLS asks for certificates by name, so that they rotate without the
// listener changing.
func downstreamTLS(l *config.Listener) *corev3.TransportSocket {
	if l.TLS == nil {
		return nil
	}
	common := &tlsv3.CommonTlsContext{
		AlpnProtocols: []string{"h2", "http/1.1"},
		TlsParams:     &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3},
	}
	if l.TLS.MinVersion == "1.3" {
		common.TlsParams.TlsMinimumProtocolVersion = tlsv3.TlsParameters_TLSv1_3
	}
	for i := range l.TLS.Certs {
		common.TlsCertificateSdsSecretConfigs = append(common.TlsCertificateSdsSecretConfigs, &tlsv3.SdsSecretConfig{Name: certSecret(l.Name, i), SdsConfig: field.ADS(0)})
	}
	context := &tlsv3.DownstreamTlsContext{CommonTlsContext: common}
	if l.TLS.ClientCA != nil {
		context.RequireClientCertificate = field.Bool(true)
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{
			ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: clientCASecret(l.Name), SdsConfig: field.ADS(0)},
		}
	}
	return &corev3.TransportSocket{Name: "envoy.transport_sockets.tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: field.Any(context)}}
}

// secret is something kept out of listeners and clusters.
type secret struct {
	message *tlsv3.Secret
	pos     config.Pos
}

func secrets(gw *config.Gateway) []secret {
	var out []secret
	for i := range gw.Listeners {
		l := &gw.Listeners[i]
		if l.TLS == nil {
			continue
		}
		for j := range l.TLS.Certs {
			out = append(out, secret{certificate(certSecret(l.Name, j), &l.TLS.Certs[j]), l.Pos})
		}
		if l.TLS.ClientCA != nil {
			out = append(out, secret{&tlsv3.Secret{Name: clientCASecret(l.Name), Type: &tlsv3.Secret_ValidationContext{
				ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: bytes(l.TLS.ClientCA)},
			}}, l.Pos})
		}
	}
	for i := range gw.Upstreams {
		if u := &gw.Upstreams[i]; u.TLS != nil && u.TLS.Cert != nil {
			out = append(out, secret{certificate(upstream.SecretName(u.Name), u.TLS.Cert), u.Pos})
		}
	}
	return out
}

func certificate(name string, c *config.Cert) *tlsv3.Secret {
	return &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{
		TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: bytes(&c.Cert), PrivateKey: bytes(&c.Key)},
	}}
}

// bytes rather than text, because Envoy's dumps redact them.
func bytes(c *config.Content) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: []byte(c.Text)}}
}
