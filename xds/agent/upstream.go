package agent

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/keepalive"
)

const (
	// A connection that a stopped control plane holds open is noticed within
	// these two; 10 s is the least that the library asks after.
	pingEvery, pingWait = 10 * time.Second, 3 * time.Second
	connectWait         = time.Second
	redial              = time.Second
	maxMessage          = 64 << 20
	// How long one that failed is not asked while another can be.
	illFirst, illMost = 2 * time.Second, time.Minute
)

// upstream is the control planes.
type upstream struct {
	planes []*plane

	mu   sync.Mutex
	last int // who was asked last
}

// plane is one control plane.
type plane struct {
	name string
	conn *grpc.ClientConn

	mu    sync.Mutex
	until time.Time // not asked before; zero when it is well
	pause time.Duration
}

func newUpstream(servers []string, options []grpc.DialOption) (*upstream, error) {
	u := &upstream{last: -1}
	for _, server := range servers {
		conn, err := grpc.NewClient("passthrough:///"+server, append([]grpc.DialOption{
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pingWait}),
			grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: connectWait, Backoff: backoff.Config{BaseDelay: redial / 2, Multiplier: 1.2, Jitter: 0.2, MaxDelay: redial}}),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
			grpc.WithIdleTimeout(0),
		}, options...)...)
		if err != nil {
			return nil, errors.Join(err, u.close())
		}
		u.planes = append(u.planes, &plane{name: server, conn: conn})
	}
	if len(u.planes) == 0 {
		return nil, errors.New("no control plane: write --xds-servers host:port,…")
	}
	return u, nil
}

func (u *upstream) close() error {
	var faults []error
	for _, p := range u.planes {
		faults = append(faults, p.conn.Close())
	}
	return errors.Join(faults...)
}

// next returns the next one that is well and answers within its time; nil when
// none does. The one that was asked last is asked last.
func (u *upstream) next(ctx context.Context, now time.Time) *plane {
	u.mu.Lock()
	first := u.last + 1
	u.mu.Unlock()
	for i := range u.planes {
		at := (first + i) % len(u.planes)
		p := u.planes[at]
		if !p.asked(now) || !p.connect(ctx, connectWait) {
			continue
		}
		u.mu.Lock()
		u.last = at
		u.mu.Unlock()
		return p
	}
	return nil
}

// await returns when one can be asked, or ctx ends.
func (u *upstream) await(ctx context.Context) {
	for ctx.Err() == nil {
		for _, p := range u.planes {
			if p.asked(time.Now()) && p.connect(ctx, connectWait) {
				return
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(redial/2 + rand.N(redial/2)):
		}
	}
}

func (p *plane) asked(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !now.Before(p.until)
}

func (p *plane) well() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until, p.pause = time.Time{}, 0
}

// ill: it took the connection and then said nothing of use.
func (p *plane) ill(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pause = min(max(2*p.pause, illFirst), illMost)
	p.until = now.Add(p.pause)
}

// connect reports whether there is a connection within the time.
func (p *plane) connect(ctx context.Context, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		state := p.conn.GetState()
		if state == connectivity.Ready {
			return true
		}
		p.conn.Connect()
		if !p.conn.WaitForStateChange(ctx, state) {
			return false
		}
	}
}
