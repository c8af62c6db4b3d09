package fleet

import (
	"context"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"tollgate/envoy"
	"tollgate/internal/peer"
	"tollgate/internal/settings"
)

// ProxyFiles puts the identity of the flags' own files where an Envoy that is
// started in dir finds it, and returns its domain and name. Without such flags it
// returns nothing, and an error where the proxy would meet a port in plain text
// that nobody asked for.
func ProxyFiles(s settings.Settings, dir string, servers []string) (domain, name string, err error) {
	own, err := ownFiles(s)
	if err != nil {
		return "", "", err
	}
	if own == nil {
		for _, server := range servers {
			if !local(server) && !s.On(settings.Insecure) {
				return "", "", settings.Usagef("%s is a port: name a socket, give --%s, --%s and --%s, or accept plain text with --%s; a proxy that joins needs no bootstrap: `tollgate envoy run --%s TOKEN`",
					server, settings.TLSCert, settings.TLSKey, settings.TLSCA, settings.Insecure, settings.Join)
			}
		}
		return "", "", nil
	}
	t, err := withSource(own, nil, nil)
	if err != nil {
		return "", "", err
	}
	return t.Domain, t.Name, t.writeProxy(dir)
}

// keepProxy hands the files of the flags to the proxy that runs in dir, again
// whenever somebody has changed them, until ctx ends.
func (t *Trust) keepProxy(ctx context.Context, dir string) error {
	last, err := t.Source.GetX509SVID()
	if err != nil {
		return err
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, err := t.Source.GetX509SVID()
		if err != nil || now == last {
			continue
		}
		if err := t.writeProxy(dir); err != nil {
			t.log.Error("certificate not handed to envoy, it keeps the last", "err", err)
			continue
		}
		last = now
	}
}

// writeProxy hands our identity to the proxy that runs in dir.
func (t *Trust) writeProxy(dir string) error {
	svid, err := t.Source.GetX509SVID()
	if err != nil {
		return err
	}
	bundle, err := t.Source.GetX509BundleForTrustDomain(svid.ID.TrustDomain())
	if err != nil {
		return err
	}
	return writeProxy(dir, svid, bundle)
}

func writeProxy(dir string, svid *x509svid.SVID, bundle *x509bundle.Bundle) error {
	chain, key, err := svid.Marshal()
	if err != nil {
		return err
	}
	return envoy.WriteIdentity(dir, envoy.Identity{Chain: chain, Key: key, Roots: peer.PEM(bundle.X509Authorities())})
}
