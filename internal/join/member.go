// Package join makes a process a member of a fleet: it trades a join token for a
// certificate, keeps it on disk, and renews it at half its life. Promises: the
// token goes to nobody but a control plane whose root the token names; the key
// never leaves the process and its folder (0600); what is on disk is always a
// pair that belongs together; a renewed certificate is used from the next
// handshake on, and a failed renewal leaves the present one in use and is a
// fault.
package join

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"tollgate/api/contract"
	"tollgate/internal/peer"
)

const (
	identityFile = "identity.pem" // key and chain: one file, so that they are never of different ages
	rootsFile    = "roots.pem"
	pendingFile  = "pending.key" // the key of a join whose answer may have been lost

	retryFirst, retryLast = 100 * time.Millisecond, 5 * time.Second
)

// Config says how to join.
type Config struct {
	Dir     string   // of the identity; made for us alone
	Token   string   // or file:PATH; not needed any more once joined
	Servers []string // control planes, host:port, tried in turn
	Log     *slog.Logger
	// Changed is told of every new identity, the first included, before it is
	// used; nil: nobody is.
	Changed func(*x509svid.SVID, *x509bundle.Bundle) error
}

// Member is a joined process. It is a peer.Source.
type Member struct {
	cfg Config

	mu     sync.Mutex
	svid   *x509svid.SVID
	bundle *x509bundle.Bundle
	fault  error
}

// Open returns the identity of the folder, or joins with the token. It tries
// until ctx ends; a token that is refused is an error, one from a file is read
// again before each try.
func Open(ctx context.Context, cfg Config) (*Member, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	m := &Member{cfg: cfg}
	token, claims, err := m.token()
	if svid, bundle, stored := m.stored(); stored == nil && (err != nil || fits(svid, bundle, claims)) {
		return m, m.use(svid, bundle)
	} else if stored != nil && !errors.Is(stored, fs.ErrNotExist) {
		cfg.Log.Warn("the identity on disk cannot be used, joining again", "err", stored)
	}
	for pause := retryFirst; ; pause = min(2*pause, retryLast) {
		if err == nil {
			err = m.join(ctx, token, claims)
		}
		if err == nil {
			return m, nil
		}
		var no refusal
		if file := token != cfg.Token; !file && (cfg.Token == "" || errors.As(err, &no)) {
			return nil, fmt.Errorf("join: %w", err)
		}
		cfg.Log.Warn("not joined yet, trying again", "err", err, "dur", pause)
		if !sleep(ctx, pause/2+mathrand.N(pause/2+1)) {
			return nil, fmt.Errorf("join: %w", errors.Join(err, ctx.Err()))
		}
		token, claims, err = m.token()
	}
}

// Known says whether a process joined from this folder before.
func Known(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, identityFile))
	return err == nil
}

func (m *Member) token() (string, Claims, error) {
	if m.cfg.Token == "" {
		return "", Claims{}, errors.New("no --join TOKEN, and no identity on disk")
	}
	token, err := ReadToken(m.cfg.Token)
	if err != nil {
		return "", Claims{}, err
	}
	claims, err := ParseToken(token)
	return token, claims, err
}

// fits says whether an identity is the one that a token would give.
func fits(svid *x509svid.SVID, bundle *x509bundle.Bundle, claims Claims) bool {
	who, err := peer.IdentityOf(svid.Certificates[0])
	return err == nil && who.Role == claims.Role && who.Name == claims.Name &&
		slices.ContainsFunc(bundle.X509Authorities(), func(root *x509.Certificate) bool {
			return slices.Contains(claims.Roots, Fingerprint(root))
		})
}

// Fingerprint is how a token names a root: SHA-256 of the certificate, hex.
func Fingerprint(root *x509.Certificate) string {
	sum := sha256.Sum256(root.Raw)
	return hex.EncodeToString(sum[:])
}

func (m *Member) stored() (*x509svid.SVID, *x509bundle.Bundle, error) {
	identity, err := os.ReadFile(filepath.Join(m.cfg.Dir, identityFile))
	if err != nil {
		return nil, nil, err
	}
	roots, err := os.ReadFile(filepath.Join(m.cfg.Dir, rootsFile))
	if err != nil {
		return nil, nil, err
	}
	return peer.ParseIdentity(identity, identity, roots)
}

// join trades the token. The key is on disk before the token is spent: who
// comes back with the same key gets its certificate, whatever became of the
// first answer.
func (m *Member) join(ctx context.Context, token string, claims Claims) error {
	path := filepath.Join(m.cfg.Dir, pendingFile)
	key, err := pendingKey(path)
	if err != nil {
		return err
	}
	answer, err := m.ask(ctx, "/v1/join", token, key, pinned(claims.Roots))
	if err != nil {
		return err
	}
	if err := m.take(key, answer); err != nil {
		return err
	}
	return os.Remove(path)
}

func pendingKey(path string) (*ecdsa.PrivateKey, error) {
	data, err := os.ReadFile(path)
	if block, _ := pem.Decode(data); err == nil && block != nil {
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if known, ok := key.(*ecdsa.PrivateKey); ok {
				return known, nil
			}
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	text, err := keyPEM(key)
	if err != nil {
		return nil, err
	}
	return key, renameio.WriteFile(path, text, 0o600)
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// take checks an answer, puts it on disk and uses it.
func (m *Member) take(key *ecdsa.PrivateKey, a Answer) error {
	text, err := keyPEM(key)
	if err != nil {
		return err
	}
	identity := append(text, a.Certificate...)
	svid, bundle, err := peer.ParseIdentity(identity, identity, []byte(a.Roots))
	if err != nil {
		return fmt.Errorf("the control plane's answer: %w", err)
	}
	if err := renameio.WriteFile(filepath.Join(m.cfg.Dir, rootsFile), []byte(a.Roots), 0o600); err != nil {
		return err
	}
	if err := renameio.WriteFile(filepath.Join(m.cfg.Dir, identityFile), identity, 0o600); err != nil {
		return err
	}
	return m.use(svid, bundle)
}

func (m *Member) use(svid *x509svid.SVID, bundle *x509bundle.Bundle) error {
	if m.cfg.Changed != nil {
		if err := m.cfg.Changed(svid, bundle); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.svid, m.bundle, m.fault = svid, bundle, nil
	m.cfg.Log.Info("certificate in use", "name", svid.ID.String(), "until", svid.Certificates[0].NotAfter)
	return nil
}

// Run renews until ctx ends.
func (m *Member) Run(ctx context.Context) error {
	for sleep(ctx, time.Until(m.half())) {
		for pause := retryFirst; ; pause = min(2*pause, time.Minute, m.life()/8) {
			err := m.renew(ctx)
			if err == nil || ctx.Err() != nil {
				break
			}
			m.mu.Lock()
			m.fault = fmt.Errorf("the certificate ends %s and was not renewed: %w", m.svid.Certificates[0].NotAfter.Format(time.RFC3339), err)
			m.mu.Unlock()
			m.cfg.Log.Error("certificate not renewed, the present one stays", "err", err, "dur", pause)
			if !sleep(ctx, pause/2+mathrand.N(pause/2+1)) {
				return nil
			}
		}
	}
	return nil
}

// renew is authenticated by the present certificate; when that has ended, by the
// token, if there is a fresh one.
func (m *Member) renew(ctx context.Context) error {
	if svid, _ := m.GetX509SVID(); time.Now().After(svid.Certificates[0].NotAfter) {
		token, claims, err := m.token()
		if err != nil {
			return fmt.Errorf("the certificate has ended: %w", err)
		}
		return m.join(ctx, token, claims)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	answer, err := m.ask(ctx, "/v1/renew", "", key, peer.Mutual{Source: m, Roles: []string{contract.RoleXDS}}.Client("http/1.1"))
	if err != nil {
		return err
	}
	return m.take(key, answer)
}

func (m *Member) life() time.Duration {
	leaf := m.leaf()
	return leaf.NotAfter.Sub(leaf.NotBefore)
}

func (m *Member) half() time.Time { return m.leaf().NotAfter.Add(-m.life() / 2) }

func (m *Member) leaf() *x509.Certificate {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.svid.Certificates[0]
}

// Identity is who we are.
func (m *Member) Identity() (peer.Identity, error) { return peer.IdentityOf(m.leaf()) }

// Fault says why the certificate could not be renewed, until it is.
func (m *Member) Fault() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fault
}

// GetX509SVID returns the certificate with its key.
func (m *Member) GetX509SVID() (*x509svid.SVID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.svid, nil
}

// GetX509BundleForTrustDomain returns the roots of our own domain.
func (m *Member) GetX509BundleForTrustDomain(domain spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bundle.GetX509BundleForTrustDomain(domain)
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
