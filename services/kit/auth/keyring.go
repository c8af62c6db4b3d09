package auth

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tollgate/services/kit/fault"
)

const (
	refreshEvery = 30 * time.Second // so a key that was removed stops counting
	retryEvery   = time.Second      // until the first keys are there; also between reads for unknown key ids
	readTimeout  = time.Second
	maxKeySet    = 64 << 10
)

type keySet map[string]ed25519.PublicKey

// keyring holds the last good keys of one source.
type keyring struct {
	source string
	remote bool
	http   *http.Client
	log    *slog.Logger

	keys    atomic.Pointer[keySet] // nil until the first are there
	reading sync.Mutex             // held while the source is read
	last    time.Time              // when it was read; guarded by reading
	failing bool                   // guarded by reading
}

func newKeyring(source string, log *slog.Logger) (*keyring, error) {
	k := &keyring{source: source, log: log, http: &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if source == "" {
		return nil, errors.New("jwks: missing: name the file or URL of the gateway's identity keys")
	}
	if !strings.Contains(source, "://") {
		return k, nil
	}
	u, err := url.Parse(source)
	if err != nil || u.Host == "" || (u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname()))) {
		return nil, fmt.Errorf("jwks %q: write a file, an https URL, or an http URL on loopback", source)
	}
	k.remote = true
	return k, nil
}

func (k *keyring) run(ctx context.Context) error {
	for {
		wait := refreshEvery
		if k.refresh(ctx, 0) != nil {
			wait = retryEvery
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// find returns a key. An unknown id may be that of a key made a moment ago, so
// the source is read again, but never more often than once a second.
func (k *keyring) find(ctx context.Context, kid string) (ed25519.PublicKey, error) {
	if key, ok := k.known(kid); ok {
		return key, nil
	}
	err := k.refresh(ctx, retryEvery)
	if key, ok := k.known(kid); ok {
		return key, nil
	}
	if k.keys.Load() == nil {
		return nil, fault.Unavailable("Identities cannot be verified at the moment", err)
	}
	return nil, errors.New("signed by an unknown key")
}

func (k *keyring) known(kid string) (ed25519.PublicKey, bool) {
	keys := k.keys.Load()
	if keys == nil {
		return nil, false
	}
	key, ok := (*keys)[kid]
	return key, ok
}

// refresh reads the source unless it was read within spacing. A source that
// fails leaves the last good keys in place.
func (k *keyring) refresh(ctx context.Context, spacing time.Duration) error {
	k.reading.Lock()
	defer k.reading.Unlock()
	if spacing > 0 && time.Since(k.last) < spacing {
		return nil
	}
	// A caller that leaves must not fail the read for those who wait for it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
	defer cancel()
	keys, err := k.read(ctx)
	k.last = time.Now()
	if err != nil {
		err = fmt.Errorf("identity keys: %s: %w", k.source, err)
		if !k.failing {
			k.log.Warn("identity keys not read", "err", err)
		}
		k.failing = true
		return err
	}
	if k.failing {
		k.log.Info("identity keys read")
	}
	k.failing = false
	k.keys.Store(&keys)
	return nil
}

func (k *keyring) read(ctx context.Context) (keySet, error) {
	body, err := k.open(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	data, err := io.ReadAll(io.LimitReader(body, maxKeySet+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxKeySet {
		return nil, fmt.Errorf("larger than %d bytes", maxKeySet)
	}
	return parseKeys(data)
}

func (k *keyring) open(ctx context.Context) (io.ReadCloser, error) {
	if !k.remote {
		return os.Open(k.source)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.source, nil)
	if err != nil {
		return nil, err
	}
	resp, err := k.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.Join(errors.New(resp.Status), resp.Body.Close())
	}
	return resp.Body, nil
}

// parseKeys takes the Ed25519 signature keys of a JWK set and passes over all
// others: the gateway signs identities with nothing else.
func parseKeys(data []byte) (keySet, error) {
	var set struct {
		Keys []struct {
			Kty, Crv, Kid, Use, X string
		} `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("not a JWK set: %w", err)
	}
	keys := keySet{}
	for _, j := range set.Keys {
		x, err := base64.RawURLEncoding.DecodeString(j.X)
		if err != nil || len(x) != ed25519.PublicKeySize || j.Kty != "OKP" || j.Crv != "Ed25519" || (j.Use != "" && j.Use != "sig") {
			continue
		}
		keys[j.Kid] = x
	}
	if len(keys) == 0 {
		return nil, errors.New("holds no Ed25519 signature key")
	}
	return keys, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
