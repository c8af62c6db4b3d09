package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"tollgate/internal/peer"
)

// Own is the identity of a part that lives in the control plane's process: it
// signs for itself, again at half the life of the last.
type Own struct {
	authority  *Authority
	role, name string

	mu   sync.Mutex
	svid *x509svid.SVID
	next time.Time
}

// Own returns the identity of one of our own parts.
func (a *Authority) Own(role, name string) *Own {
	return &Own{authority: a, role: role, name: name}
}

// GetX509SVID returns the certificate with its key.
func (o *Own) GetX509SVID() (*x509svid.SVID, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.authority.cfg.Now()
	if o.svid != nil && now.Before(o.next) {
		return o.svid, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	chain, err := o.authority.Issue(key.Public(), o.role, o.name)
	if err != nil {
		return nil, err
	}
	id, err := peer.ID(o.authority.domain, o.role, o.name)
	if err != nil {
		return nil, err
	}
	o.svid = &x509svid.SVID{ID: id, Certificates: chain, PrivateKey: key}
	// A rotation of the root shows here within the minute.
	o.next = now.Add(min(o.authority.cfg.TTL/2, time.Minute))
	return o.svid, nil
}

// GetX509BundleForTrustDomain returns the roots of our own domain.
func (o *Own) GetX509BundleForTrustDomain(asked spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return x509bundle.FromX509Authorities(o.authority.domain, o.authority.Roots()).GetX509BundleForTrustDomain(asked)
}
