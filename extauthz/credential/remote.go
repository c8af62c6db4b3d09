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
	refreshFailed  = 2 * time.Second  // first wait after a failure; doubles
	missSpacing    = 10 * time.Second // after a refresh that tokens asked for and that brought nothing
	awaitRefresh   = 300 * time.Millisecond
	maxWaiting     = 1024
	staleLimit     = 24 * time.Hour
	fetchTimeout   = 5 * time.Second
)

// Remote is a key set behind a URL. It is fetched by Run alone, never by a
// request: a request reads what is there, and may wait a moment for what comes.
type Remote struct {
	url    string
	client *http.Client
	log    *slog.Logger
	miss   chan struct{}
	state  atomic.Pointer[fetched]
	seats  chan struct{} // of requests that wait

	mu      sync.Mutex
	ended   chan struct{} // closed when the fetch under way, or the next one, ends
	running bool
	due     time.Time // of the next fetch that needs no asking
	vain    time.Time // of the last fetch that was asked for and brought nothing new
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
		url: rawURL, log: log, miss: make(chan struct{}, 1), seats: make(chan struct{}, maxWaiting), ended: make(chan struct{}),
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
// 300 ms. It does not wait where none can come: refreshes that brought nothing
// are 10 s apart, and a bounded number of requests wait.
func (r *Remote) Await(ctx context.Context, kid string, arrived time.Time) bool {
	select {
	case r.seats <- struct{}{}:
		defer func() { <-r.seats }()
	default:
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, awaitRefresh)
	defer cancel()
	for {
		ended, soon := r.next(time.Now())
		if f := r.state.Load(); f != nil {
			if _, found := f.set.Lookup(kid); found || !f.at.Before(arrived) {
				return !f.at.Before(arrived)
			}
		}
		select {
		case r.miss <- struct{}{}:
		default:
		}
		if !soon {
			return false
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return false
		}
	}
}

// next returns what is closed when a fetch ends, and whether one may end soon.
func (r *Remote) next(now time.Time) (ended chan struct{}, soon bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	horizon := now.Add(awaitRefresh)
	return r.ended, r.running || r.due.Before(horizon) || r.vain.Add(missSpacing).Before(horizon)
}

// Run fetches until ctx ends: when the set is due, sooner after a failure or
// when a token names a key that is not there, but not at once again where that
// was in vain.
func (r *Remote) Run(ctx context.Context) error {
	failures, asked := 0, false
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
		r.end(started, wait, asked && !news)
		if err != nil {
			r.log.Warn("key set could not be fetched, the last one stays", "component", "extauthz", "resource", r.url, "err", err)
		}
		var ok bool
		if asked, ok = r.rest(ctx, started.Add(wait)); !ok {
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
func (r *Remote) end(started time.Time, wait time.Duration, vain bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running, r.due = false, started.Add(wait)
	if vain {
		r.vain = started
	}
	// Whoever asked is answered, or asks again.
	select {
	case <-r.miss:
	default:
	}
	close(r.ended)
	r.ended = make(chan struct{})
}

// rest waits until a fetch is due, and reports whether a token asked for it,
// and whether to go on.
func (r *Remote) rest(ctx context.Context, due time.Time) (asked, ok bool) {
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	for miss := r.miss; ; miss = nil {
		select {
		case <-ctx.Done():
			return false, false
		case <-timer.C:
			return asked, true
		case <-miss:
			if may := r.vain.Add(missSpacing); may.Before(due) {
				asked = true
				timer.Reset(time.Until(may))
			}
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
