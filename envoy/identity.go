package envoy

import (
	"fmt"
	"os"
	"path/filepath"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"tollgate/api/contract"
	"tollgate/internal/secretfile"
)

// Identity is what a proxy proves who it is with, all PEM.
type Identity struct{ Chain, Key, Roots []byte }

// WriteIdentity puts an identity where a proxy whose working directory is dir
// finds it. Certificate and key are one file that is renamed into place, so a
// running proxy never sees one without the other.
func WriteIdentity(dir string, id Identity) error {
	folder := filepath.Join(dir, contract.ProxyIdentity)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("envoy's identity: %w", err)
	}
	inline := func(data []byte) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: data}}
	}
	for name, secret := range map[string]*tlsv3.Secret{
		contract.ProxyRoots: {Name: contract.SecretRoots, Type: &tlsv3.Secret_ValidationContext{
			ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(id.Roots)},
		}},
		contract.ProxyCertificate: {Name: contract.SecretCertificate, Type: &tlsv3.Secret_TlsCertificate{
			TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: inline(id.Chain), PrivateKey: inline(id.Key)},
		}},
	} {
		body, err := anypb.New(secret)
		if err != nil {
			return err
		}
		text, err := protojson.Marshal(&discoveryv3.DiscoveryResponse{Resources: []*anypb.Any{body}})
		if err != nil {
			return err
		}
		if err := secretfile.Write(filepath.Join(folder, name), text, 0o600); err != nil {
			return fmt.Errorf("envoy's identity: %w", err)
		}
	}
	return nil
}

// identitySocket is TLS to a control plane of the domain.
func identitySocket(trustDomain string) (*corev3.TransportSocket, error) {
	file := func(name string) *corev3.ConfigSource {
		return &corev3.ConfigSource{
			ResourceApiVersion: corev3.ApiVersion_V3,
			ConfigSourceSpecifier: &corev3.ConfigSource_PathConfigSource{PathConfigSource: &corev3.PathConfigSource{
				Path: contract.ProxyIdentity + "/" + name, WatchedDirectory: &corev3.WatchedDirectory{Path: contract.ProxyIdentity},
			}},
		}
	}
	typed, err := anypb.New(&tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
		TlsParams:                      &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3},
		AlpnProtocols:                  []string{"h2"},
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: contract.SecretCertificate, SdsConfig: file(contract.ProxyCertificate)}},
		ValidationContextType: &tlsv3.CommonTlsContext_CombinedValidationContext{CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext: &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{
				SanType: tlsv3.SubjectAltNameMatcher_URI,
				Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: contract.SPIFFE(trustDomain, contract.RoleXDS)}},
			}}},
			ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: contract.SecretRoots, SdsConfig: file(contract.ProxyRoots)},
		}},
	}})
	if err != nil {
		return nil, err
	}
	return &corev3.TransportSocket{Name: "envoy.transport_sockets.tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: typed}}, nil
}
