package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"tollgate/ratelimit/engine"
)

// ErrRefused means that the store is down and a limit says to refuse then.
var ErrRefused = errors.New("the store of limits is down and a limit says on_error: closed")

// Store is what decides requests and may fail.
type Store interface {
	Take(ctx context.Context, now time.Time, cells []engine.Cell) ([]engine.Reading, error)
}

// FailoverConfig is what a Failover is made of.
type FailoverConfig struct {
	Primary  Store
	Local    *Memory       // counts while the primary is down
	Timeout  time.Duration // the most the primary may take; 0 means DefaultTimeout
	Log      *slog.Logger
	Degraded func(bool) // told when the primary is lost and when it is back; may be nil
}

// Failover asks the primary and, when it fails, does what each limit says. A
// dead primary costs one request its deadline now and then, not every one. A
// request that the primary answered too late may count there and in memory.
type Failover struct {
	cfg     FailoverConfig
	circuit circuit
}

// NewFailover returns a store that never waits longer than its timeout.
func NewFailover(cfg FailoverConfig) *Failover {
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	return &Failover{cfg: cfg}
}

// Degraded reports whether the primary is taken to be down.
func (f *Failover) Degraded() bool { return f.circuit.open() }

// Take decides one request.
func (f *Failover) Take(ctx context.Context, now time.Time, cells []engine.Cell) ([]engine.Reading, error) {
	allowed, probe := f.circuit.try(now)
	if !allowed {
		return f.fallBack(ctx, now, cells)
	}
	budget := f.budget(ctx)
	bounded, cancel := context.WithTimeout(ctx, budget)
	readings, err := f.cfg.Primary.Take(bounded, now, cells)
	cancel()
	switch {
	case err == nil:
		if f.circuit.succeeded() {
			f.cfg.Log.InfoContext(ctx, "store of limits is back")
			f.tell(false)
		}
		return readings, nil
	case ctx.Err() != nil, budget < conclusive && errors.Is(err, context.DeadlineExceeded):
		// The caller went away or was in too much of a hurry: that says
		// nothing about the primary.
		f.circuit.inconclusive(probe)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	case f.circuit.failed(now.Add(budget), probe):
		f.cfg.Log.WarnContext(ctx, "store of limits is down; every limit does what its on_error says", "err", err)
		f.tell(true)
	}
	return f.fallBack(ctx, now, cells)
}

func (f *Failover) tell(degraded bool) {
	if f.cfg.Degraded != nil {
		f.cfg.Degraded(degraded)
	}
}

// budget leaves the caller time to hear of the fallback: Envoy tells us 50 ms
// and gives up each of two tries after 25. A caller in no hurry, or one that
// has no deadline, is better served by the shared count.
func (f *Failover) budget(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return min(f.cfg.Timeout, time.Until(deadline)*3/8)
	}
	return f.cfg.Timeout
}

func (f *Failover) fallBack(ctx context.Context, now time.Time, cells []engine.Cell) ([]engine.Reading, error) {
	readings := make([]engine.Reading, len(cells))
	counted := make([]engine.Cell, 0, len(cells))
	for i := range cells {
		switch {
		case cells[i].OnError == engine.Closed && !cells[i].Shadow:
			return nil, ErrRefused
		case cells[i].OnError == engine.Local:
			counted = append(counted, cells[i])
		default:
			readings[i].Allowed = true
		}
	}
	local, err := f.cfg.Local.Take(ctx, now, counted)
	if err != nil {
		return nil, fmt.Errorf("local memory: %w", err)
	}
	for i, next := 0, 0; i < len(cells); i++ {
		if cells[i].OnError == engine.Local {
			readings[i] = local[next]
			next++
		}
	}
	return readings, nil
}

// circuit remembers that the primary is down, and lets one request at a time
// find out whether it is back.
type circuit struct {
	mu      sync.Mutex
	down    bool
	probing bool
	wait    time.Duration
	until   time.Time
}

const (
	firstWait  = 100 * time.Millisecond
	mostWait   = time.Second
	conclusive = 5 * time.Millisecond // a primary that takes longer is down
)

// try reports whether a request may go to the primary, and whether it is the
// one that finds out whether the primary is back.
func (c *circuit) try(now time.Time) (allowed, probe bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.down {
		return true, false
	}
	if c.probing || now.Before(c.until) {
		return false, false
	}
	c.probing = true
	return true, true
}

// succeeded reports whether the primary was down.
func (c *circuit) succeeded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.down
	c.down, c.probing, c.wait = false, false, 0
	return was
}

// failed reports whether the primary was up. Of the requests that fail
// together, only the first and later the probe make the wait longer.
func (c *circuit) failed(now time.Time, probe bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := !c.down
	if was || probe {
		c.wait = min(max(2*c.wait, firstWait), mostWait)
		c.until = now.Add(c.wait)
		c.probing = false
	}
	c.down = true
	return was
}

// inconclusive lets the next request probe if this one was to.
func (c *circuit) inconclusive(probe bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.probing = c.probing && !probe
}

func (c *circuit) open() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.down
}
