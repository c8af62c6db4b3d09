package auth

import (
	"context"
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

	"tollgate/internal/jwks"
	"tollgate/services/kit/fault"
)

const (
	refreshEvery = 30 * time.Second // so a key that was removed stops counting
	retryEvery   = time.Second      // until the first keys are there; also between reads for unknown key ids
	readTimeout  = time.Second
)

// keyring holds the last good keys of one source.
type keyring struct {
	source string
	remote bool
	http   *http.Client
	log    *slog.Logger

	keys    atomic.Pointer[jwks.Set] // nil until the first are there
	reading sync.Mutex               // held while the source is read
	last    time.Time                // when it was read; guarded by reading
	failing bool                     // guarded by reading
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

// with returns keys among which is the one named. An unknown id may be that of
// a key made a moment ago, so the source is read again, but never more often
// than once a second.
func (k *keyring) with(ctx context.Context, kid string) (jwks.Set, error) {
	if keys := k.keys.Load(); knows(keys, kid) {
		return *keys, nil
	}
	err := k.refresh(ctx, retryEvery)
	keys := k.keys.Load()
	if keys == nil {
		return jwks.Set{}, fault.Unavailable("Identities cannot be verified at the moment", err)
	}
	if !knows(keys, kid) {
		return jwks.Set{}, invalid(errors.New("signed by an unknown key"))
	}
	return *keys, nil
}

func knows(keys *jwks.Set, kid string) bool {
	if keys == nil {
		return false
	}
	_, ok := keys.Lookup(kid)
	return ok
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

func (k *keyring) read(ctx context.Context) (jwks.Set, error) {
	body, err := k.open(ctx)
	if err != nil {
		return jwks.Set{}, err
	}
	defer func() { _ = body.Close() }()
	data, err := io.ReadAll(io.LimitReader(body, jwks.MaxBytes+1))
	if err != nil {
		return jwks.Set{}, err
	}
	keys, err := jwks.Parse(data)
	if err == nil && keys.Len() == 0 {
		err = errors.New("holds no usable key")
	}
	return keys, err
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

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
