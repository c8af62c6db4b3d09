package credential

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"tollgate/internal/jwks"
)

const (
	refreshDefault = 5 * time.Minute
	refreshMin     = time.Minute
	refreshMax     = 15 * time.Minute
	refreshFailed  = 2 * time.Second  // first wait after a failure; doubles
	missSpacing    = 10 * time.Second // between refreshes that tokens ask for
	staleLimit     = 24 * time.Hour
	fetchTimeout   = 5 * time.Second
)

// Remote is a key set behind a URL. It is fetched by Run alone, never by a
// request: a request reads what is there.
type Remote struct {
	url    string
	client *http.Client
	log    *slog.Logger
	miss   chan struct{}
	state  atomic.Pointer[fetched]
}

type fetched struct {
	set jwks.Set
	at  time.Time
}

// CheckURL refuses a URL that keys must not come from: they decide who gets
// in, so nobody on the way may change them.
func CheckURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return fmt.Errorf("jwks url is not a URL")
	}
	if u.Host == "" || u.User != nil {
		return fmt.Errorf("jwks url %s: a host and no user is needed", u.Redacted())
	}
	address := net.ParseIP(u.Hostname())
	loopback := u.Hostname() == "localhost" || address != nil && address.IsLoopback()
	if u.Scheme != "https" && (u.Scheme != "http" || !loopback) {
		return fmt.Errorf("jwks url %s: https is needed, http only to loopback", u.Redacted())
	}
	return nil
}

// NewRemote returns a source that holds no keys until Run fetched them.
func NewRemote(rawURL string, transport http.RoundTripper, log *slog.Logger) (*Remote, error) {
	if err := CheckURL(rawURL); err != nil {
		return nil, err
	}
	return &Remote{
		url: rawURL, log: log, miss: make(chan struct{}, 1),
		client: &http.Client{
			Transport: transport, Timeout: fetchTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("redirects are not followed") },
		},
	}, nil
}

// Keys returns the last set that could be fetched, for at most a day.
func (r *Remote) Keys(now time.Time) (jwks.Set, bool) {
	f := r.state.Load()
	if f == nil || now.Sub(f.at) > staleLimit {
		return jwks.Set{}, false
	}
	return f.set, true
}

// Miss asks for a refresh; many at once are one.
func (r *Remote) Miss() {
	select {
	case r.miss <- struct{}{}:
	default:
	}
}

// Run fetches until ctx ends: when the set is due, sooner after a failure or
// when a token names a key that is not there, but then at most every 10 s.
func (r *Remote) Run(ctx context.Context) error {
	failures := 0
	for {
		started := time.Now()
		keep, err := r.fetch(ctx)
		if ctx.Err() != nil {
			return nil
		}
		wait := jitter(keep)
		if err != nil {
			wait = jitter(min(refreshFailed<<min(failures, 6), refreshMin))
			failures++
			r.log.Warn("key set could not be fetched, the last one stays", "component", "extauthz", "resource", r.url, "err", err)
		} else {
			failures = 0
		}
		if !r.rest(ctx, started, wait) {
			return nil
		}
	}
}

// rest waits, and reports whether to go on.
func (r *Remote) rest(ctx context.Context, started time.Time, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for miss := r.miss; ; miss = nil {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-miss:
			timer.Reset(min(wait, max(0, missSpacing-time.Since(started))))
		}
	}
}

func jitter(d time.Duration) time.Duration {
	return d - time.Duration(rand.Int64N(int64(d)/5+1))
}

func (r *Remote) fetch(ctx context.Context) (keep time.Duration, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, nil)
	if err != nil {
		return 0, err
	}
	request.Header.Set("Accept", "application/json")
	response, err := r.client.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("status %d", response.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, jwks.MaxBytes+1))
	if err != nil {
		return 0, err
	}
	set, err := jwks.Parse(data)
	if err != nil {
		return 0, err
	}
	if set.Len() == 0 {
		return 0, errors.New("the key set has no usable key")
	}
	r.state.Store(&fetched{set: set, at: time.Now()})
	return maxAge(response.Header.Get("Cache-Control")), nil
}

// maxAge reads how long the issuer wants its set kept, within our bounds.
func maxAge(cacheControl string) time.Duration {
	for directive := range strings.SplitSeq(cacheControl, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		if strings.EqualFold(name, "max-age") {
			if seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
				return min(max(time.Duration(seconds)*time.Second, refreshMin), refreshMax)
			}
		}
	}
	return refreshDefault
}
