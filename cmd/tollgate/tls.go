package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"tollgate/internal/daemon"
)

// serverCredentials are those of an address we listen on. Off loopback plain
// text must be asked for.
func (s settings) serverCredentials(flag string) (grpc.ServerOption, error) {
	cert, key := s.text(flagTLSCert), s.text(flagTLSKey)
	if cert == "" && key == "" {
		if address := s.address(flag); !daemon.Loopback(address) && !s.on(flagInsecure) {
			return nil, fmt.Errorf("--%s %s is off loopback: give --%s and --%s, or accept plain text with --%s", flag, address, flagTLSCert, flagTLSKey, flagInsecure)
		}
		return grpc.Creds(insecure.NewCredentials()), nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("--%s, --%s: %w", flagTLSCert, flagTLSKey, err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if s.text(flagTLSCA) != "" {
		if config.ClientCAs, err = s.pool(); err != nil {
			return nil, err
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return grpc.Creds(credentials.NewTLS(config)), nil
}

// dialOptions are those of a role that asks the control plane.
func (s settings) dialOptions() ([]grpc.DialOption, error) {
	if s.text(flagTLSCA) == "" {
		for _, server := range s.list(flagXDSServers) {
			if !daemon.Loopback(server) && !s.on(flagInsecure) {
				return nil, fmt.Errorf("--%s %s is off loopback: give --%s, or accept plain text with --%s", flagXDSServers, server, flagTLSCA, flagInsecure)
			}
		}
		return []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, nil
	}
	pool, err := s.pool()
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	if s.text(flagTLSCert) != "" {
		pair, err := tls.LoadX509KeyPair(s.text(flagTLSCert), s.text(flagTLSKey))
		if err != nil {
			return nil, fmt.Errorf("--%s, --%s: %w", flagTLSCert, flagTLSKey, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(config))}, nil
}

func (s settings) pool() (*x509.CertPool, error) {
	pem, err := os.ReadFile(s.text(flagTLSCA))
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flagTLSCA, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--%s %s: no PEM certificate in it", flagTLSCA, s.text(flagTLSCA))
	}
	return pool, nil
}
