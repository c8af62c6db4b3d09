// Package traffic makes clients of every kind: open and closed loops that count
// what came back, and raw HTTP/1 and HTTP/2 that sends what no client should.
// Invariant: every load is bounded in count or time, and every request ends.
package traffic

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Request describes what a load sends, the same one over and over unless Vary
// changes it.
type Request struct {
	Method string // "": GET
	URL    string
	Host   string
	Header map[string]string
	Body   string
	Vary   func(i int, r *http.Request) // may be nil
}

// Load is a bounded number of requests. With a Rate it is open loop: requests
// leave on time however slow the answers are. Without, Workers send one after
// another until Count are sent.
type Load struct {
	Request  Request
	Rate     int           // a second
	Duration time.Duration // of an open loop that nobody stops
	Workers  int           // closed loop; 0: 1
	Count    int           // closed loop
	Timeout  time.Duration // of one request; 0: 5 s
	Client   *http.Client  // nil: keep-alive, up to 64 connections, no redirects
}

// Result is what came back.
type Result struct {
	Sent    int
	Status  map[int]int
	Errors  map[string]int // transport errors by text
	By      map[string]int // answers by the x-upstream or x-served-by header
	Latency *hdrhistogram.Histogram
	Samples []string // of what was not 2xx, with its time into the load
	Elapsed time.Duration
}

// Failed counts the requests that got no answer or one of 5xx.
func (r *Result) Failed() int {
	n := 0
	for _, count := range r.Errors {
		n += count
	}
	for status, count := range r.Status {
		if status >= 500 {
			n += count
		}
	}
	return n
}

// Not counts the requests that were answered with another status, or not at all.
func (r *Result) Not(statuses ...int) int {
	n := r.Sent
	for _, status := range statuses {
		n -= r.Status[status]
	}
	return n
}

func (r *Result) String() string {
	return fmt.Sprintf("%d requests in %v: status %v, errors %v, by %v, p50 %v p99 %v max %v; %s", r.Sent, r.Elapsed.Round(time.Millisecond),
		r.Status, r.Errors, r.By, r.quantile(50), r.quantile(99), r.quantile(100), strings.Join(r.Samples, " | "))
}

// Merge adds another result to this one.
func (r *Result) Merge(other *Result) {
	r.Sent += other.Sent
	for k, v := range other.Status {
		r.Status[k] += v
	}
	for k, v := range other.Errors {
		r.Errors[k] += v
	}
	for k, v := range other.By {
		r.By[k] += v
	}
	r.Samples = append(r.Samples, other.Samples...)
	r.Latency.Merge(other.Latency)
	r.Elapsed = max(r.Elapsed, other.Elapsed)
}

func (r *Result) quantile(q float64) time.Duration {
	return time.Duration(r.Latency.ValueAtQuantile(q)) * time.Microsecond
}

// Running is a load that is under way.
type Running struct {
	load    Load
	client  *http.Client
	start   time.Time
	stop    context.CancelFunc
	ended   chan struct{}
	pending sync.WaitGroup
	sent    atomic.Int64

	mu     sync.Mutex
	result *Result
}

// maxInFlight bounds an open loop: beyond it a request counts as failed
// instead of being sent.
const maxInFlight = 1000

// Start starts a load; Stop or Wait returns its result.
func Start(l Load) *Running {
	ctx, cancel := context.WithCancel(context.Background())
	if l.Rate > 0 && l.Duration > 0 {
		ctx, cancel = context.WithTimeout(context.Background(), l.Duration)
	}
	r := &Running{
		load: l, client: l.Client, start: time.Now(), stop: cancel, ended: make(chan struct{}),
		result: &Result{Status: map[int]int{}, Errors: map[string]int{}, By: map[string]int{}, Latency: hdrhistogram.New(1, 60_000_000, 3)},
	}
	if r.client == nil {
		r.client = NewClient(64)
	}
	if r.load.Timeout == 0 {
		r.load.Timeout = 5 * time.Second
	}
	go func() {
		defer close(r.ended)
		if l.Rate > 0 {
			r.open(ctx)
		} else {
			r.closed(ctx)
		}
		r.pending.Wait()
		r.client.CloseIdleConnections()
	}()
	return r
}

// Run runs a load to its end.
func Run(l Load) *Result { return Start(l).Wait() }

// Stop ends the load, waits for the answers under way and returns the result.
func (r *Running) Stop() *Result {
	r.stop()
	return r.Wait()
}

// Wait waits for the end of the load.
func (r *Running) Wait() *Result {
	<-r.ended
	r.stop()
	r.result.Elapsed = time.Since(r.start)
	return r.result
}

func (r *Running) open(ctx context.Context) {
	interval := time.Second / time.Duration(r.load.Rate)
	slots := make(chan struct{}, maxInFlight)
	for i := 0; ; i++ {
		if wait := time.Until(r.start.Add(time.Duration(i) * interval)); wait > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
		}
		if ctx.Err() != nil {
			return
		}
		select {
		case slots <- struct{}{}:
		default:
			r.note(i, time.Now(), nil, errors.New("not sent: too many are under way"))
			continue
		}
		r.pending.Add(1)
		go func() {
			defer r.pending.Done()
			r.once(context.WithoutCancel(ctx), i)
			<-slots
		}()
	}
}

func (r *Running) closed(ctx context.Context) {
	for range max(r.load.Workers, 1) {
		r.pending.Add(1)
		go func() {
			defer r.pending.Done()
			for ctx.Err() == nil {
				i := int(r.sent.Add(1)) - 1
				if i >= r.load.Count {
					return
				}
				r.once(context.WithoutCancel(ctx), i)
			}
		}()
	}
}

// once sends a request that its load's end does not cut.
func (r *Running) once(ctx context.Context, i int) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, r.load.Timeout)
	defer cancel()
	request, err := r.load.Request.New(ctx, i)
	if err != nil {
		r.note(i, start, nil, err)
		return
	}
	response, err := r.client.Do(request)
	if err == nil {
		_, err = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
	}
	r.note(i, start, response, err)
}

// New makes the i-th request.
func (q Request) New(ctx context.Context, i int) (*http.Request, error) {
	method := q.Method
	if method == "" {
		method = http.MethodGet
	}
	request, err := http.NewRequestWithContext(ctx, method, q.URL, strings.NewReader(q.Body))
	if err != nil {
		return nil, err
	}
	if q.Body == "" {
		request.Body = http.NoBody
	}
	if q.Host != "" {
		request.Host = q.Host
	}
	for name, value := range q.Header {
		request.Header.Set(name, value)
	}
	if q.Vary != nil {
		q.Vary(i, request)
	}
	return request, nil
}

func (r *Running) note(i int, start time.Time, response *http.Response, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Sent++
	_ = r.result.Latency.RecordValue(max(time.Since(start).Microseconds(), 1))
	sample := ""
	switch {
	case err != nil:
		r.result.Errors[shorten(err)]++
		sample = shorten(err)
	default:
		r.result.Status[response.StatusCode]++
		for _, name := range []string{"x-upstream", "x-served-by"} {
			if by := response.Header.Get(name); by != "" {
				r.result.By[by]++
				break
			}
		}
		if response.StatusCode >= 300 {
			sample = fmt.Sprint(response.StatusCode)
		}
	}
	if sample != "" && len(r.result.Samples) < 8 {
		r.result.Samples = append(r.result.Samples, fmt.Sprintf("#%d at %v: %s", i, start.Sub(r.start).Round(time.Millisecond), sample))
	}
}

func shorten(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, "\": "); i >= 0 {
		text = text[i+3:]
	}
	// A local port in the text would make every error one of its own.
	if i, j := strings.Index(text, "127.0.0.1:"), strings.Index(text, "->"); i >= 0 && j > i {
		text = text[:i] + text[j:]
	}
	return text
}

// NewClient returns a keep-alive client that follows no redirect and checks no
// certificate; connections bounds those to one host.
func NewClient(connections int) *http.Client {
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections, DisableCompression: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // a test's own certificate
		},
	}
}

// Fataler is what Do needs of a test.
type Fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// maxBody bounds what is read of an answer.
const maxBody = 8 << 20

// Answer is a response, read to its end.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Do sends one request.
func (q Request) Do(t Fataler, client *http.Client) Answer {
	t.Helper()
	if client == nil {
		client = NewClient(1)
		defer client.CloseIdleConnections()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, err := q.New(ctx, 0)
	if err != nil {
		t.Fatalf("%s: %v", q.URL, err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatalf("%s %s: %v", request.Method, q.URL, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		t.Fatalf("%s %s: %v", request.Method, q.URL, err)
	}
	return Answer{Status: response.StatusCode, Header: response.Header, Body: string(body)}
}

// With returns the request with further headers.
func (q Request) With(header map[string]string) Request {
	all := maps.Clone(q.Header)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, header)
	q.Header = all
	return q
}
