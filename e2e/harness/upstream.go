package harness

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// keptRequests bounds what an upstream remembers.
const keptRequests = 4096

// Upstream is a service behind the gateway that remembers what it saw. It
// answers 200 with its name in x-upstream, unless Handle says otherwise;
// /healthz is always answered and never counted.
type Upstream struct {
	Name    string
	Address string

	handler atomic.Pointer[http.HandlerFunc]
	healthy atomic.Bool
	count   atomic.Int64
	bytes   atomic.Int64

	secure *tls.Config // nil: in the clear

	mu     sync.Mutex
	seen   []Seen
	server *http.Server
	done   chan struct{}
}

// Seen is a request as the upstream saw it.
type Seen struct {
	Method, Target, Host string
	Header               http.Header
	Body                 string
}

// NewUpstream starts an upstream on a free address.
func NewUpstream(t TB, name string) *Upstream {
	t.Helper()
	u := &Upstream{Name: name, Address: FreeAddress(t)}
	u.healthy.Store(true)
	u.Start(t)
	t.Cleanup(u.Stop)
	return u
}

// NewTLSUpstream starts an upstream that speaks TLS with a certificate and its
// key, as PEM.
func NewTLSUpstream(t TB, cert, key string) *Upstream {
	t.Helper()
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		t.Fatalf("upstream: %v", err)
	}
	u := &Upstream{Name: "tls", Address: FreeAddress(t), secure: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}}
	u.healthy.Store(true)
	u.Start(t)
	t.Cleanup(u.Stop)
	return u
}

// NewUpstreams starts one upstream per name.
func NewUpstreams(t TB, names ...string) []*Upstream {
	t.Helper()
	var all []*Upstream
	for _, name := range names {
		all = append(all, NewUpstream(t, name))
	}
	return all
}

// Start listens again after Stop, on the same address.
func (u *Upstream) Start(t TB) {
	t.Helper()
	var listener net.Listener
	Eventually(t, 5*time.Second, "upstream "+u.Name+" listens", func() (err error) {
		listener, err = net.Listen("tcp", u.Address) //nolint:noctx // immediate
		return err
	})
	listener = &countingListener{Listener: listener, bytes: &u.bytes}
	if u.secure != nil {
		listener = tls.NewListener(listener, u.secure)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	// A proxy opens connections to spare: whoever gives those up before the proxy
	// does, meets its next request.
	u.server = &http.Server{Handler: http.HandlerFunc(u.serve), ReadHeaderTimeout: 5 * time.Minute, IdleTimeout: 5 * time.Minute, MaxHeaderBytes: 1 << 20, ErrorLog: log.New(io.Discard, "", 0)}
	u.done = make(chan struct{})
	go func(server *http.Server, done chan struct{}) {
		defer close(done)
		_ = server.Serve(listener)
	}(u.server, u.done)
}

// Stop ends the upstream at once and cuts its connections, as kill -9 would.
func (u *Upstream) Stop() {
	u.mu.Lock()
	server, done := u.server, u.done
	u.server = nil
	u.mu.Unlock()
	if server != nil {
		_ = server.Close()
		<-done
	}
}

// Handle replaces what the upstream does; nil restores the default.
func (u *Upstream) Handle(h http.HandlerFunc) {
	if h == nil {
		u.handler.Store(nil)
		return
	}
	u.handler.Store(&h)
}

// SetHealthy says what /healthz answers: 200 or 503.
func (u *Upstream) SetHealthy(healthy bool) { u.healthy.Store(healthy) }

// Count is how many requests came, health checks apart.
func (u *Upstream) Count() int64 { return u.count.Load() }

// Bytes is how many bytes came on all connections, understood or not.
func (u *Upstream) Bytes() int64 { return u.bytes.Load() }

// Take returns the requests since the last call.
func (u *Upstream) Take() []Seen {
	u.mu.Lock()
	defer u.mu.Unlock()
	seen := u.seen
	u.seen = nil
	return seen
}

func (u *Upstream) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("x-upstream", u.Name)
	if r.URL.Path == "/healthz" {
		if !u.healthy.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return
	}
	u.count.Add(1)
	body, _ := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	u.mu.Lock()
	if len(u.seen) < keptRequests {
		u.seen = append(u.seen, Seen{Method: r.Method, Target: r.RequestURI, Host: r.Host, Header: r.Header.Clone(), Body: string(body)})
	}
	u.mu.Unlock()
	if h := u.handler.Load(); h != nil {
		(*h)(w, r)
		return
	}
	_, _ = fmt.Fprintf(w, "{\"upstream\":%q}\n", u.Name)
}

// countingListener counts what arrives, so that a test can tell "nothing
// reached it" from "nothing it understood reached it".
type countingListener struct {
	net.Listener
	bytes *atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countingConn{Conn: c, bytes: l.bytes}, nil
}

type countingConn struct {
	net.Conn
	bytes *atomic.Int64
}

func (c *countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}
