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
// started in dir finds it, and returns its domain and name; without such flags
// nothing.
func ProxyFiles(s settings.Settings, dir string) (domain, name string, err error) {
	own, err := ownFiles(s)
	if own == nil || err != nil {
		return "", "", err
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
