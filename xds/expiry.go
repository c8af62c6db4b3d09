package xds

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"sync"
	"time"

	"tollgate/internal/peer"
	"tollgate/xds/config"
)

// ending is a certificate that the gateway file names.
type ending struct {
	what string
	leaf *x509.Certificate
}

// expiry knows when the certificates of the served file end. Each file is read
// once, however often it is asked.
type expiry struct {
	mu   sync.Mutex
	of   *config.Gateway
	ends []ending // in the order of the file
}

// faults are the certificates that have ended or end soon.
func (e *expiry) faults(g *config.Gateway, now time.Time) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if g == nil {
		return nil
	}
	if e.of != g {
		e.of, e.ends = g, endings(g)
	}
	var out []string
	for _, one := range e.ends {
		if err := peer.EndsSoon(one.what, one.leaf, now); err != nil {
			out = append(out, err.Error())
		}
	}
	return out
}

func endings(g *config.Gateway) []ending {
	var out []ending
	add := func(what string, cert config.Content) {
		// The file was taken, so this is a certificate.
		if block, _ := pem.Decode([]byte(cert.Text)); block != nil {
			if leaf, err := x509.ParseCertificate(block.Bytes); err == nil {
				out = append(out, ending{fmt.Sprintf("%s: the certificate of %s", what, cert), leaf})
			}
		}
	}
	for _, l := range g.Listeners {
		if l.TLS == nil {
			continue
		}
		for i, c := range l.TLS.Certs {
			add(fmt.Sprintf("listeners[%s].tls.certs[%d]", l.Name, i), c.Cert)
		}
	}
	for _, u := range g.Upstreams {
		if u.TLS != nil && u.TLS.Cert != nil {
			add(fmt.Sprintf("upstreams[%s].tls.cert", u.Name), u.TLS.Cert.Cert)
		}
	}
	return out
}
