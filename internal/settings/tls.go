package settings

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"tollgate/internal/daemon"
)

// ServerCredentials are those of an address we listen on. Off loopback plain
// text must be asked for.
func (s Settings) ServerCredentials(flag string) (grpc.ServerOption, error) {
	cert, key := s.Text(TLSCert), s.Text(TLSKey)
	if cert == "" && key == "" {
		if address := s.Address(flag); !daemon.Loopback(address) && !s.On(Insecure) {
			return nil, Usagef("--%s %s is off loopback: give --%s and --%s, or accept plain text with --%s", flag, address, TLSCert, TLSKey, Insecure)
		}
		return grpc.Creds(insecure.NewCredentials()), nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("--%s, --%s: %w", TLSCert, TLSKey, err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if s.Text(TLSCA) != "" {
		if config.ClientCAs, err = s.pool(); err != nil {
			return nil, err
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return grpc.Creds(credentials.NewTLS(config)), nil
}

// PlainAdmin refuses an admin address off loopback, where the registry's token
// would cross the network in plain text, unless that was asked for.
func (s Settings) PlainAdmin() error {
	if address := s.Address(AdminAddress); !daemon.Loopback(address) && !s.On(Insecure) {
		return Usagef("--%s %s is off loopback and speaks plain HTTP: put a proxy with TLS in front of it, or accept plain text with --%s", AdminAddress, address, Insecure)
	}
	return nil
}

// PrivateEnvoyAdmin refuses an address of Envoy's own admin that another
// machine reaches: it can stop the proxy and show its secrets.
func (s Settings) PrivateEnvoyAdmin() error {
	if address := s.Address(EnvoyAdmin); !strings.HasPrefix(address, "unix:") && !daemon.Loopback(address) {
		return Usagef("--%s %s: Envoy's admin can stop the proxy and show its secrets, so it stays on loopback or a socket", EnvoyAdmin, address)
	}
	return nil
}

// DialOptions are those of a role that asks the control plane.
func (s Settings) DialOptions() ([]grpc.DialOption, error) {
	if s.Text(TLSCA) == "" {
		for _, server := range s.List(XDSServers) {
			if !daemon.Loopback(server) && !s.On(Insecure) {
				return nil, Usagef("--%s %s is off loopback: give --%s, or accept plain text with --%s", XDSServers, server, TLSCA, Insecure)
			}
		}
		return []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, nil
	}
	pool, err := s.pool()
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	if s.Text(TLSCert) != "" {
		pair, err := tls.LoadX509KeyPair(s.Text(TLSCert), s.Text(TLSKey))
		if err != nil {
			return nil, fmt.Errorf("--%s, --%s: %w", TLSCert, TLSKey, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(config))}, nil
}

func (s Settings) pool() (*x509.CertPool, error) {
	pem, err := os.ReadFile(s.Text(TLSCA))
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", TLSCA, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--%s %s: no PEM certificate in it", TLSCA, s.Text(TLSCA))
	}
	return pool, nil
}
