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
	"sync"
	"sync/atomic"
	"time"

	"tollgate/internal/jwks"
)

const (
	refreshDefault = 5 * time.Minute
	refreshMin     = time.Minute
	refreshMax     = 15 * time.Minute
	refreshFailed  = 2 * time.Second // first wait after a failure; doubles
	awaitRefresh   = 300 * time.Millisecond
	// After a fetch that brought nothing new, one that tokens ask for begins no
	// sooner than this after it. A token that nobody
	// can tell from the first of a new key has the short wait, whoever else asks:
	// the 300 ms of its patience less what a fetch takes. One that says it is older
	// than the set, or an issuer that failed, has the long one.
	soonAgain    = 200 * time.Millisecond
	laterAgain   = 10 * time.Second
	maxWaiting   = 1024
	staleLimit   = 24 * time.Hour
	fetchTimeout = 5 * time.Second
)

// Remote is a key set behind a URL. It is fetched by Run alone, never by a
// request: a request reads what is there, and may wait a moment for what comes.
type Remote struct {
	url    string
	client *http.Client
	log    *slog.Logger
	wake   chan struct{} // the next fetch is due sooner
	state  atomic.Pointer[fetched]
	seats  chan struct{} // of requests that wait

	mu      sync.Mutex
	ended   chan struct{} // closed when the fetch under way, or the next one, ends
	running bool
	due     time.Time // of the next fetch
	vain    time.Time // of the last fetch that brought nothing new
	failed  bool      // the last fetch did
}

// fetched is a key set and when the fetch that brought it began.
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
		url: rawURL, log: log, wake: make(chan struct{}, 1), seats: make(chan struct{}, maxWaiting), ended: make(chan struct{}),
		client: &http.Client{
			Transport: transport, Timeout: fetchTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("redirects are not followed") },
		},
	}, nil
}

// Keys returns the last set that could be fetched, for at most a day.
func (r *Remote) Keys(now time.Time) (jwks.Set, time.Time, bool) {
	f := r.state.Load()
	if f == nil || now.Sub(f.at) > staleLimit {
		return jwks.Set{}, time.Time{}, false
	}
	return f.set, f.at, true
}

// Await asks for a refresh, many at once for one, and waits for it for at most
// 300 ms. It does not wait where none can come in that time, nor where too many
// wait already.
func (r *Remote) Await(ctx context.Context, want Wanted) bool {
	select {
	case r.seats <- struct{}{}:
		defer func() { <-r.seats }()
	default:
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, awaitRefresh)
	defer cancel()
	for {
		ended := r.ending()
		if f := r.state.Load(); f != nil {
			if _, found := f.set.Lookup(want.KeyID); found || !f.at.Before(want.Arrived) {
				return !f.at.Before(want.Arrived)
			}
		}
		if !r.ask(want, time.Now()) {
			return false
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return false
		}
	}
}

// ending is closed when the fetch under way, or the next one, ends.
func (r *Remote) ending() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended
}

// ask brings the next fetch forward as far as this token may, and reports
// whether one may end soon.
func (r *Remote) ask(want Wanted, now time.Time) (soon bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running {
		return true // whoever it does not help asks again
	}
	spacing := soonAgain
	if f := r.state.Load(); r.failed || f != nil && want.issuedBefore(f.at) {
		spacing = laterAgain
	}
	if at := r.vain.Add(spacing); at.Before(r.due) {
		r.due = at
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
	return r.due.Before(now.Add(awaitRefresh))
}

// Run fetches until ctx ends: when the set is due, sooner after a failure or
// when a token names a key that is not there, but not at once again where that
// was in vain.
func (r *Remote) Run(ctx context.Context) error {
	defer r.client.CloseIdleConnections()
	failures := 0
	for {
		started := r.begin()
		keep, news, err := r.fetch(ctx, started)
		if ctx.Err() != nil {
			return nil
		}
		wait := jitter(keep)
		if err != nil {
			wait = jitter(min(refreshFailed<<min(failures, 6), refreshMin))
			failures++
		} else {
			failures = 0
		}
		r.end(started, wait, !news, err != nil)
		if err != nil {
			r.log.Warn("key set could not be fetched, the last one stays", "component", "extauthz", "resource", r.url, "err", err)
		}
		if !r.rest(ctx) {
			return nil
		}
	}
}

func (r *Remote) begin() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = true
	return time.Now()
}

// end tells those who wait.
func (r *Remote) end(started time.Time, wait time.Duration, vain, failed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running, r.failed, r.due = false, failed, started.Add(wait)
	if vain {
		r.vain = started
	}
	close(r.ended)
	r.ended = make(chan struct{})
}

// rest waits until a fetch is due, and reports whether to go on.
func (r *Remote) rest(ctx context.Context) bool {
	for {
		r.mu.Lock()
		due := r.due
		r.mu.Unlock()
		timer := time.NewTimer(time.Until(due))
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
			return true
		case <-r.wake:
			timer.Stop()
		}
	}
}

func jitter(d time.Duration) time.Duration {
	return d - time.Duration(rand.Int64N(int64(d)/5+1))
}

// fetch reports how long to keep the set, and whether it has a key that the last
// one had not.
func (r *Remote) fetch(ctx context.Context, started time.Time) (keep time.Duration, news bool, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, nil)
	if err != nil {
		return 0, false, err
	}
	request.Header.Set("Accept", "application/json")
	response, err := r.client.Do(request)
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return 0, false, fmt.Errorf("status %d", response.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, jwks.MaxBytes+1))
	if err != nil {
		return 0, false, err
	}
	set, err := jwks.Parse(data)
	if err != nil {
		return 0, false, err
	}
	if set.Len() == 0 {
		return 0, false, errors.New("the key set has no usable key")
	}
	before := r.state.Swap(&fetched{set: set, at: started})
	return maxAge(response.Header.Get("Cache-Control")), before == nil || !before.set.Covers(set), nil
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
