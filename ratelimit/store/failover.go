package store

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"tollgate/ratelimit/engine"
)

// ErrRefused means that the shared store does not answer and a limit says to
// refuse then.
var ErrRefused = errors.New("the store of limits is down and a limit says on_error: closed")

// DefaultPatience is how long a trip may take before those that wait for it do
// what their limits say: longer than the hiccups of a busy machine, shorter than
// what a client notices.
const DefaultPatience = 100 * time.Millisecond

// Store is what decides requests and may fail.
type Store interface {
	Take(ctx context.Context, now time.Time, cells []engine.Cell) ([]engine.Reading, error)
}

// FailoverConfig is what a Failover is made of.
type FailoverConfig struct {
	Primary  Primary
	Local    *Memory       // remembers what the primary said, counts while it does not answer
	Patience time.Duration // how long callers wait for a trip; 0 means DefaultPatience
	Timeout  time.Duration // the most a trip may take; 0 means DefaultTimeout
	Now      func() time.Time
	Log      *slog.Logger
	Degraded func(bool) // told when the primary is lost and when it is back; may be nil
}

// Failover counts in the primary, one trip at a time for all callers that wait,
// and does what each limit says while the primary does not answer:
//
//   - A request that a spent counter refuses is refused from memory.
//   - A trip out of patience releases all that wait; until it is answered, and
//     while the circuit is open, requests are decided at once.
//   - A limit that counts in memory starts from the last count known, divided
//     among the limiters that live, and what it admits is booked in the primary
//     when that is back. What the primary counted for a caller that had left, or
//     that was counted in memory as well, is given back.
//   - The circuit opens after failures in a row, or one that leaves no doubt, and
//     closes when a sign of life could be written.
//
// Run must be running for the last.
type Failover struct {
	cfg      FailoverConfig
	queue    queue
	turn     sync.Mutex // the circuit and the queue open and close together
	circuit  circuit
	limiters atomic.Int64
	offset   atomic.Int64 // the primary's clock less ours, microseconds
	counts   counts
}

type counts struct{ trips, local, remembered atomic.Uint64 }

// NewFailover returns a store that answers whatever the primary does.
func NewFailover(cfg FailoverConfig) *Failover {
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Patience == 0 {
		cfg.Patience = DefaultPatience
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	f := &Failover{cfg: cfg, circuit: newCircuit()}
	f.limiters.Store(1)
	f.queue = queue{
		primary: cfg.Primary, patience: min(cfg.Patience, cfg.Timeout), timeout: cfg.Timeout,
		settled: f.settled, ended: f.ended, debts: ledger{debts: map[string]Debt{}},
	}
	return f
}

// Degraded reports whether the primary is taken to be down.
func (f *Failover) Degraded() bool { return f.circuit.isOpen() }

// Trips returns how many trips to the primary were made.
func (f *Failover) Trips() uint64 { return f.counts.trips.Load() }

// Locals returns how many requests were decided without the primary because it
// did not answer.
func (f *Failover) Locals() uint64 { return f.counts.local.Load() }

// Remembered returns how many requests were refused without asking the primary,
// by counters that it had said were spent.
func (f *Failover) Remembered() uint64 { return f.counts.remembered.Load() }

// Take decides one request.
func (f *Failover) Take(ctx context.Context, now time.Time, cells []engine.Cell) ([]engine.Reading, error) {
	at := now.UnixMicro() + f.offset.Load()
	if readings, refused := f.cfg.Local.refused(at, cells); refused {
		f.counts.remembered.Add(1)
		return readings, nil
	}
	c := f.queue.join(cells) //nolint:contextcheck // a trip serves many callers and ends with none of them
	if c == nil {
		return f.fallBack(nil, at, cells)
	}
	f.wait(ctx, c)
	if c.err == nil {
		return c.readings, nil
	}
	if err := ctx.Err(); err != nil {
		// A caller out of time is admitted by the proxy unless a limit is
		// closed; one that went away takes what it counted with it.
		f.queue.abandon(c, errors.Is(err, context.DeadlineExceeded) && !closed(cells), at)
		return nil, err
	}
	return f.fallBack(c, at, cells)
}

// wait returns when the call is answered or nobody should wait for it. A caller
// with a deadline keeps the better part of its time for hearing of the answer.
func (f *Failover) wait(ctx context.Context, c *call) {
	var late <-chan time.Time
	if deadline, ok := ctx.Deadline(); ok {
		timer := time.NewTimer(time.Until(deadline) * 3 / 8)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-c.done:
		return
	case <-late:
	case <-ctx.Done():
	}
	f.queue.leave(c)
}

// settled takes what a trip taught. It runs in the order of trips. The primary
// looked at its clock at some time of the trip, so a slow one says little about
// that clock: what is believed of it moves no further than it must.
func (f *Failover) settled(s Settled, took time.Duration) {
	least := s.Now - f.cfg.Now().UnixMicro()
	f.offset.Store(min(max(f.offset.Load(), least), least+took.Microseconds()))
	f.cfg.Local.learn(s.Now, s.Counters, &f.queue.debts)
}

func (f *Failover) ended(err error) {
	f.counts.trips.Add(1)
	if err == nil {
		f.circuit.worked()
		return
	}
	f.failed(err, false)
}

func (f *Failover) failed(err error, beat bool) {
	f.turn.Lock()
	defer f.turn.Unlock()
	if f.circuit.failed(err, beat) {
		f.queue.close(err)
		f.cfg.Log.Warn("store of limits is down; every limit does what its on_error says", "err", err)
		f.tell(true)
	}
}

func (f *Failover) worked(limiters int) {
	f.turn.Lock()
	defer f.turn.Unlock()
	f.limiters.Store(int64(max(limiters, 1)))
	if f.circuit.close() {
		f.cfg.Log.Info("store of limits is back")
		f.tell(false)
	}
	f.queue.open()
}

func (f *Failover) tell(degraded bool) {
	if f.cfg.Degraded != nil {
		f.cfg.Degraded(degraded)
	}
}

// Run shows the primary that this limiter lives, finds out whether the primary
// does, whether or not there are requests, and returns nil when ctx ends.
func (f *Failover) Run(ctx context.Context) error {
	f.beat(ctx)
	for {
		timer := time.NewTimer(f.circuit.pause())
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-f.circuit.opened: // the pause is another one now
			timer.Stop()
		case <-timer.C:
			f.beat(ctx)
		}
	}
}

func (f *Failover) beat(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	switch n, err := f.cfg.Primary.Beat(bounded); {
	case ctx.Err() != nil:
	case err != nil:
		f.failed(err, true)
	default:
		f.worked(n) //nolint:contextcheck // the trip that books debts outlives the beat
	}
}

func closed(cells []engine.Cell) bool {
	for i := range cells {
		if cells[i].OnError == engine.Closed && !cells[i].Shadow {
			return true
		}
	}
	return false
}

// fallBack decides a request by what its limits say; c is nil for one that did
// not wait.
func (f *Failover) fallBack(c *call, at int64, cells []engine.Cell) ([]engine.Reading, error) {
	f.counts.local.Add(1)
	if closed(cells) {
		f.queue.abandon(c, false, at)
		return nil, ErrRefused
	}
	return f.queue.count(c, cells, at, func(cells []engine.Cell, commit bool) ([]engine.Reading, bool) {
		return f.local(at, cells, commit)
	}), nil
}

// local decides in memory the cells whose limits say so, and admits the others.
func (f *Failover) local(at int64, cells []engine.Cell, commit bool) ([]engine.Reading, bool) {
	readings := make([]engine.Reading, len(cells))
	counted := make([]engine.Cell, 0, len(cells))
	for i := range cells {
		if readings[i].Allowed = true; cells[i].OnError == engine.Local {
			counted = append(counted, cells[i])
		}
	}
	local, admitted := f.cfg.Local.take(at, counted, share{true, int(f.limiters.Load())}, commit)
	for i, next := 0, 0; i < len(cells); i++ {
		if cells[i].OnError == engine.Local {
			readings[i] = local[next]
			next++
		}
	}
	return readings, admitted
}

// conclusive reports whether one such failure is enough: the primary answered
// that it cannot, or did not answer for the whole of a trip's time.
func conclusive(err error) bool {
	var said interface{ RedisError() }
	var silent net.Error // what the client says when its own time is over first
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &said) || errors.As(err, &silent) && silent.Timeout()
}
