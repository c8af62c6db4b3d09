package peer

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// reread is how often files are looked at again, at most.
const reread = time.Second

// soon is how long before its end a certificate that somebody must replace is a
// fault.
const soon = 7 * 24 * time.Hour

// EndsSoon is the fault of a certificate that somebody must replace and that ends
// within a week or, where its whole life is short, in the last third of it; nil
// before that.
func EndsSoon(what string, c *x509.Certificate, now time.Time) error {
	if c.NotAfter.Sub(now) >= min(soon, c.NotAfter.Sub(c.NotBefore)/3) {
		return nil
	}
	return fmt.Errorf("%s ends %s: replace it", what, c.NotAfter.UTC().Format(time.RFC3339))
}

// Files is a Source of PEM files that somebody else keeps. They are looked at
// again at handshakes; what cannot be used changes nothing, and is a Fault.
type Files struct {
	cert, key, ca string

	mu     sync.Mutex
	looked time.Time
	read   [3][]byte
	svid   *x509svid.SVID
	bundle *x509bundle.Bundle
	fault  error
}

// OpenFiles reads a certificate chain, its key and the roots of all others. The
// certificate must name spiffe://DOMAIN/ROLE/NAME as its only URI.
func OpenFiles(cert, key, ca string) (*Files, error) {
	f := &Files{cert: cert, key: key, ca: ca}
	f.refresh(time.Now())
	return f, f.fault
}

// GetX509SVID returns the certificate with its key.
func (f *Files) GetX509SVID() (*x509svid.SVID, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refresh(time.Now())
	return f.svid, nil
}

// GetX509BundleForTrustDomain returns the roots of our own domain.
func (f *Files) GetX509BundleForTrustDomain(domain spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refresh(time.Now())
	return f.bundle.GetX509BundleForTrustDomain(domain)
}

// Fault says what is wrong with the files as they are on disk, while the last good
// ones are in use; or that the certificate ends soon.
func (f *Files) Fault() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refresh(time.Now())
	if f.fault != nil || f.svid == nil {
		return f.fault
	}
	return EndsSoon("the certificate of "+f.cert, f.svid.Certificates[0], time.Now())
}

func (f *Files) refresh(now time.Time) {
	if now.Sub(f.looked) < reread {
		return
	}
	f.looked = now
	var read [3][]byte
	for i, path := range []string{f.cert, f.key, f.ca} {
		data, err := os.ReadFile(path)
		if err != nil {
			f.fault = err
			return
		}
		read[i] = data
	}
	if f.svid != nil && bytes.Equal(read[0], f.read[0]) && bytes.Equal(read[1], f.read[1]) && bytes.Equal(read[2], f.read[2]) {
		f.fault = nil
		return
	}
	svid, bundle, err := ParseIdentity(read[0], read[1], read[2])
	if err != nil {
		f.fault = fmt.Errorf("%s, %s, %s: %w", f.cert, f.key, f.ca, err)
		return
	}
	f.read, f.svid, f.bundle, f.fault = read, svid, bundle, nil
}

// ParseIdentity reads what proves an identity, all PEM: chain, key, roots.
func ParseIdentity(chain, key, roots []byte) (*x509svid.SVID, *x509bundle.Bundle, error) {
	svid, err := x509svid.Parse(chain, key)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: the certificate needs one URI, spiffe://DOMAIN/ROLE/NAME, and the key that belongs to it", err)
	}
	if _, err := IdentityOf(svid.Certificates[0]); err != nil {
		return nil, nil, err
	}
	bundle, err := x509bundle.Parse(svid.ID.TrustDomain(), roots)
	if err != nil {
		return nil, nil, err
	}
	if bundle.Empty() {
		return nil, nil, fmt.Errorf("no root certificate (PEM): without one nobody could be verified")
	}
	if _, _, err := x509svid.Verify(svid.Certificates, bundle); err != nil {
		return nil, nil, fmt.Errorf("%w: others would refuse our certificate", err)
	}
	return svid, bundle, nil
}

// PEM is what others read of certificates.
func PEM(certificates []*x509.Certificate) []byte {
	var out []byte
	for _, c := range certificates {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}
