package store

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"tollgate/ratelimit/engine"
)

// What bounds a trip and the queue before it.
const (
	maxWaiting   = 8192 // requests; beyond it each limit does what its on_error says
	maxRequests  = 256  // of a trip
	maxCounters  = 1024 // of a trip
	maxDelivered = 256  // debts of a trip
)

var (
	errStalled = errors.New("the store of limits has not answered for a while")
	errLate    = errors.New("the store of limits did not answer in time")
)

// call is one request that waits for the shared store. Its state belongs to
// the queue's mutex.
type call struct {
	cells    []engine.Cell
	done     chan struct{} // closed when it is answered or released
	readings []engine.Reading
	err      error
	state    callState
	late     *lateAnswer
}

type callState uint8

const (
	waiting  callState = iota
	sent               // on its way, may have been counted
	answered           // with readings
	released           // the caller does without, or has left
)

// lateAnswer is what the shared store did for a caller that no longer waited,
// and what was decided without it; whichever comes second settles the two.
type lateAnswer struct {
	there   []engine.Reading // of the shared store; nil: not known yet
	decided bool
	here    []engine.Reading // of this limiter's memory; nil: nothing was counted here
	passed  bool             // the request was admitted, counted or not
}

// queue makes one trip at a time for all that wait.
type queue struct {
	primary  Primary
	patience time.Duration                       // a trip that takes longer has stalled
	timeout  time.Duration                       // a trip that takes longer has failed
	settled  func(s Settled, took time.Duration) // told in the order of trips, under the mutex
	ended    func(error)                         // told of every trip's end

	mu      sync.Mutex
	waiting []*call
	flying  []*call // of the trip under way
	sending bool
	stalled bool // the trip under way is out of patience
	closed  bool // no trips but those that probe
	debts   ledger
}

// join lets a request wait, or returns nil when it need not bother.
func (q *queue) join(cells []engine.Cell) *call {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.stalled || len(q.waiting) >= maxWaiting {
		return nil
	}
	c := &call{cells: cells, done: make(chan struct{})}
	q.waiting = append(q.waiting, c)
	q.start()
	return c
}

// start makes trips if none is under way. The mutex is held.
func (q *queue) start() {
	if !q.sending {
		q.sending = true
		go q.run()
	}
}

// deliver makes a trip for debts alone, if there are any.
func (q *queue) deliver() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.debts.debts) > 0 && !q.closed {
		q.start()
	}
}

// leave takes back a request whose caller waits no longer. One that was not
// sent never happened.
func (q *queue) leave(c *call) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.release(c, errLate)
}

func (q *queue) release(c *call, err error) {
	switch c.state {
	case sent:
		c.late = &lateAnswer{}
	case waiting:
	case answered, released:
		return
	}
	c.state, c.err = released, err
	close(c.done)
}

// run makes trips until nobody waits.
func (q *queue) run() {
	for {
		calls, trip := q.next()
		if len(calls) == 0 && len(trip.Debts) == 0 {
			return
		}
		q.travel(calls, trip)
	}
}

// next takes the requests of a trip, those whose callers have left aside.
func (q *queue) next() ([]*call, Trip) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var (
		calls    []*call
		trip     Trip
		taken    int
		counters int
	)
	for _, c := range q.waiting {
		if len(calls) == maxRequests || counters+len(c.cells) > maxCounters && len(calls) > 0 {
			break
		}
		taken++
		if c.state == waiting {
			c.state = sent
			calls, trip.Requests = append(calls, c), append(trip.Requests, c.cells)
			counters += len(c.cells)
		}
	}
	clear(q.waiting[:taken])
	if q.waiting = q.waiting[taken:]; len(q.waiting) == 0 {
		q.waiting = nil
	}
	if !q.closed {
		trip.Debts = q.debts.take(trip.Requests, maxDelivered)
	}
	q.sending = len(calls) > 0 || len(trip.Debts) > 0
	q.flying = calls
	return calls, trip
}

func (q *queue) travel(calls []*call, trip Trip) {
	ctx, cancel := context.WithTimeout(context.Background(), q.timeout)
	defer cancel()
	over := false
	watch := time.AfterFunc(q.patience, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if over {
			return
		}
		q.stalled = true
		for _, c := range calls {
			q.release(c, errStalled)
		}
		q.empty(errStalled)
	})
	left := time.Now()
	settled, err := q.primary.Settle(ctx, trip)
	took := time.Since(left)
	watch.Stop()
	q.mu.Lock()
	over, q.stalled, q.flying = true, false, nil
	if err != nil {
		q.debts.restore(trip.Debts)
		for _, c := range calls {
			if c.state == sent {
				c.state, c.err = released, err
				close(c.done)
			}
		}
	} else {
		for i, c := range calls {
			q.answer(c, settled.Readings[i], settled.Now)
		}
		q.settled(settled, took)
		// Last, so that whoever hears of it finds it remembered.
		for _, c := range calls {
			if c.state == answered {
				close(c.done)
			}
		}
	}
	q.mu.Unlock()
	q.ended(err)
}

// answer hands a request its readings, or notes for whom they came too late.
func (q *queue) answer(c *call, readings []engine.Reading, now int64) {
	if c.state == sent {
		c.state, c.readings = answered, readings
		return
	}
	if engine.Admitted(c.cells, readings) {
		c.late.there = readings
		q.reconcile(c, now)
	}
}

// abandon notes what became of a request that was counted nowhere here.
func (q *queue) abandon(c *call, passed bool, now int64) {
	if c == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.decided(c, nil, passed, now)
}

// count decides a request in memory. No trip leaves between that and the booking
// of its hits, and what the trip under way may yet admit is taken as admitted.
func (q *queue) count(c *call, cells []engine.Cell, now int64, memory func(cells []engine.Cell, commit bool) ([]engine.Reading, bool)) []engine.Reading {
	q.mu.Lock()
	defer q.mu.Unlock()
	if beside := q.besideFlying(cells); beside != nil {
		if readings, admitted := memory(beside, false); !admitted {
			q.decided(c, readings, false, now)
			return readings
		}
	}
	readings, admitted := memory(cells, true)
	for i := range readings {
		if admitted && readings[i].Known && readings[i].Allowed {
			q.debts.owe(&cells[i], hits(&cells[i]), now)
		}
	}
	q.decided(c, readings, admitted, now)
	return readings
}

// besideFlying returns cells that cost what the requests of the trip under way
// do as well, or nil when none of these touches the same counters.
func (q *queue) besideFlying(cells []engine.Cell) []engine.Cell {
	var beside []engine.Cell
	for _, other := range q.flying {
		if other.state != sent {
			continue
		}
		for i := range other.cells {
			for j := range cells {
				if other.cells[i].Key != cells[j].Key {
					continue
				}
				if beside == nil {
					beside = slices.Clone(cells)
				}
				beside[j].Cost = max(beside[j].Cost, 1) + other.cells[i].Cost
			}
		}
	}
	return beside
}

// decided settles a request with what the shared store did for it, or will. The
// mutex is held.
func (q *queue) decided(c *call, here []engine.Reading, passed bool, now int64) {
	if c != nil && c.late != nil {
		c.late.decided, c.late.here, c.late.passed = true, here, passed
		q.reconcile(c, now)
	}
}

// reconcile gives back what the shared store counted for a request that was
// counted here as well, or not admitted at all.
func (q *queue) reconcile(c *call, now int64) {
	if c.late.there == nil || !c.late.decided {
		return
	}
	for i := range c.cells {
		twice := c.late.passed && c.late.here != nil && c.late.here[i].Known && c.late.here[i].Allowed
		if c.late.there[i].Allowed && (twice || !c.late.passed) {
			q.debts.owe(&c.cells[i], -hits(&c.cells[i]), now)
		}
	}
}

func hits(c *engine.Cell) int64 { return int64(min(c.Cost, engine.MaxLimit)) }

// empty releases all that wait. The mutex is held.
func (q *queue) empty(err error) {
	for _, c := range q.waiting {
		q.release(c, err)
	}
	q.waiting = nil
}

// close lets nobody wait until open; what waits is released.
func (q *queue) close(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.empty(err)
}

func (q *queue) open() {
	q.mu.Lock()
	q.closed = false
	q.mu.Unlock()
	q.deliver()
}
