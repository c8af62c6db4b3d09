// Package trust is the control plane's half of a fleet's trust: the CA, the join
// tokens, the door at which members get and renew certificates, and what each
// role may ask for. Promises: control planes that share a data folder have one
// CA, however close they start; a certificate says what a token said, never what
// the asking side says; a token is good for one key; the CA's key and the
// tokens' key leave neither the folder nor the process.
package trust

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"tollgate/internal/peer"
	"tollgate/internal/secretfile"
)

const (
	// DefaultTTL is how long a member's certificate is good for.
	DefaultTTL = 24 * time.Hour
	// Overlap is how long a new root is known before it signs, and an old one is
	// believed after that: a member hears of roots when it renews.
	Overlap = 24 * time.Hour

	rootLife = 10 * 365 * 24 * time.Hour
	backdate = time.Minute // clocks of machines differ
	domain   = "tollgate"
	folder   = "ca"
)

// Config says where the CA is.
type Config struct {
	Dir string // the data folder; the CA is made in it unless CertFile names another
	// CertFile and KeyFile are a CA of the operator's (PEM); the first certificate
	// signs, all of the file are roots.
	CertFile, KeyFile string
	TTL               time.Duration // of members' certificates; 0: DefaultTTL
	Now               func() time.Time
}

// Authority signs members' certificates. Its files are read again as needed, so
// that a rotation by another process counts here, too.
type Authority struct {
	cfg    Config
	domain spiffeid.TrustDomain

	members *Members

	mu    sync.Mutex
	read  time.Time
	roots []root
}

// root is a CA certificate; key is nil when it only verifies.
type root struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// since is when the root was made.
func (r root) since() time.Time { return r.cert.NotBefore.Add(backdate) }

// Open reads the CA, or makes it.
func Open(cfg Config) (*Authority, error) {
	cfg.TTL = cmp.Or(cfg.TTL, DefaultTTL)
	members, err := OpenMembers(cfg.Dir, cfg.Now)
	if err != nil {
		return nil, err
	}
	a := &Authority{cfg: cfg, members: members}
	if cfg.CertFile == "" {
		if _, err := secretfile.LoadOrCreate(filepath.Join(cfg.Dir, folder, "1.pem"), a.create); err != nil {
			return nil, fmt.Errorf("CA: %w", err)
		}
	}
	roots, err := a.load()
	if err != nil {
		return nil, fmt.Errorf("CA: %w", err)
	}
	a.roots, a.read = roots, cfg.Now()
	a.domain = spiffeid.RequireTrustDomainFromString(domain)
	if uris := a.signing(a.read).cert.URIs; len(uris) == 1 {
		if id, err := spiffeid.FromURI(uris[0]); err == nil {
			a.domain = id.TrustDomain()
		}
	}
	return a, nil
}

// Rotate adds a root, which every control plane of the folder hands out at once
// and signs with after Overlap.
func (a *Authority) Rotate() error {
	if a.cfg.CertFile != "" {
		return errors.New("the CA is the operator's own: change its files")
	}
	made, err := a.create()
	if err != nil {
		return err
	}
	names, err := a.names()
	if err != nil {
		return err
	}
	for n := len(names) + 1; ; n++ {
		kept, err := secretfile.LoadOrCreate(filepath.Join(a.cfg.Dir, folder, strconv.Itoa(n)+".pem"), func() ([]byte, error) { return made, nil })
		if err != nil {
			return err
		}
		if string(kept) == string(made) {
			break
		}
	}
	a.mu.Lock()
	a.read = time.Time{}
	a.mu.Unlock()
	return nil
}

func (a *Authority) create() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := serial()
	if err != nil {
		return nil, err
	}
	now := a.cfg.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "tollgate " + now.UTC().Format(time.DateOnly)},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(rootLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		URIs: []*url.URL{{Scheme: "spiffe", Host: domain}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	return append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...), nil
}

func serial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

func (a *Authority) names() ([]string, error) {
	return filepath.Glob(filepath.Join(a.cfg.Dir, folder, "*.pem"))
}

func (a *Authority) load() ([]root, error) {
	if a.cfg.CertFile != "" {
		return loadRoots(a.cfg.CertFile, a.cfg.KeyFile)
	}
	names, err := a.names()
	if err != nil {
		return nil, err
	}
	var roots []root
	for _, name := range names {
		one, err := loadRoots(name, name)
		if err != nil {
			return nil, err
		}
		roots = append(roots, one...)
	}
	if len(roots) == 0 {
		return nil, fmt.Errorf("%s holds no *.pem", filepath.Join(a.cfg.Dir, folder))
	}
	slices.SortFunc(roots, func(x, y root) int {
		return cmp.Or(x.since().Compare(y.since()), x.cert.SerialNumber.Cmp(y.cert.SerialNumber))
	})
	return roots, nil
}

// loadRoots reads the certificates of a file, the first with its key.
func loadRoots(certFile, keyFile string) ([]root, error) {
	info, err := os.Stat(keyFile)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others: chmod 600 it", keyFile)
	}
	chain, err := os.ReadFile(certFile)
	if err != nil {
		return nil, err
	}
	secret, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, err
	}
	bundle, err := x509bundle.Parse(spiffeid.RequireTrustDomainFromString(domain), chain)
	if err != nil || bundle.Empty() {
		return nil, fmt.Errorf("%s holds no certificate (PEM): %w", certFile, err)
	}
	key, err := signer(secret)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keyFile, err)
	}
	var roots []root
	for i, cert := range bundle.X509Authorities() {
		if !cert.IsCA {
			return nil, fmt.Errorf("%s: certificate %d is no CA", certFile, i+1)
		}
		roots = append(roots, root{cert: cert})
	}
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(roots[0].cert.PublicKey) {
		return nil, fmt.Errorf("%s is not the key of the first certificate of %s", keyFile, certFile)
	}
	roots[0].key = key
	return roots, nil
}

func signer(text []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if s, ok := key.(crypto.Signer); ok {
				return s, nil
			}
		}
		if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
			return key, nil
		}
		if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
			return key, nil
		}
	}
	return nil, errors.New("no private key (PEM) in it")
}

// refresh takes the roots as they are on disk; what cannot be read changes
// nothing.
func (a *Authority) refresh() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now := a.cfg.Now(); now.Sub(a.read) >= time.Second || now.Before(a.read) {
		a.read = now
		if roots, err := a.load(); err == nil {
			a.roots = roots
		}
	}
}

// signing is the newest root that everybody has had the time to hear of.
func (a *Authority) signing(now time.Time) root {
	var best root
	for _, r := range a.roots {
		if r.key != nil && (best.cert == nil || !r.since().Add(Overlap).After(now)) {
			best = r
		}
	}
	return best
}

// trusted are the roots to believe: an old one until all that it signed has ended.
func (a *Authority) trusted(now time.Time) []*x509.Certificate {
	var out []*x509.Certificate
	for i, r := range a.roots {
		gone := false
		for _, next := range a.roots[i+1:] {
			gone = gone || (r.key != nil && next.key != nil && next.since().Add(2*Overlap).Before(now))
		}
		if !gone {
			out = append(out, r.cert)
		}
	}
	return out
}

// Domain is the trust domain of all members.
func (a *Authority) Domain() spiffeid.TrustDomain { return a.domain }

// Members are those of the fleet.
func (a *Authority) Members() *Members { return a.members }

// Roots are those to believe now.
func (a *Authority) Roots() []*x509.Certificate {
	a.refresh()
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.trusted(a.cfg.Now())
}

// Issue signs a certificate; its chain ends with the root, by which a joining
// side knows us.
func (a *Authority) Issue(public crypto.PublicKey, role, name string) ([]*x509.Certificate, error) {
	if key, ok := public.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("the key must be ECDSA P-256")
	}
	id, err := peer.ID(a.domain, role, name)
	if err != nil {
		return nil, err
	}
	number, err := serial()
	if err != nil {
		return nil, err
	}
	a.refresh()
	now := a.cfg.Now()
	a.mu.Lock()
	by := a.signing(now)
	a.mu.Unlock()
	end := now.Add(a.cfg.TTL + time.Second - 1).Truncate(time.Second) // certificates count in seconds
	if end.After(by.cert.NotAfter) {
		end = by.cert.NotAfter
	}
	begin := now.Add(-min(backdate, a.cfg.TTL/10))
	if since := a.members.sinceOf(role, name); begin.Before(since) {
		if since.After(now.Add(backdate)) {
			return nil, fmt.Errorf("%s/%s is %w until %s", role, name, ErrRemoved, since.Format(time.RFC3339))
		}
		begin = since // or it would look like one that was made before the removal
	}
	template := &x509.Certificate{
		SerialNumber: number, NotBefore: begin, NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, URIs: []*url.URL{id.URL()},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, public, by.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return []*x509.Certificate{leaf, by.cert}, err
}
