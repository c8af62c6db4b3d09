package store

import (
	"sync"
	"time"
)

const (
	failuresInARow = 3
	firstPause     = 100 * time.Millisecond
	mostPause      = time.Second
	// relapse is how soon after its return a store that fails again is paused
	// for as long as before: one that flips is not followed at every flip.
	relapse = 10 * time.Second
)

// circuit remembers whether the shared store is down.
type circuit struct {
	opened chan struct{} // wakes who finds out whether the store is back

	mu       sync.Mutex
	open     bool
	failures int // of trips in a row
	missed   int // signs of life in a row
	wait     time.Duration
	back     time.Time
}

func newCircuit() circuit { return circuit{opened: make(chan struct{}, 1)} }

func (c *circuit) isOpen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open
}

// worked forgets failures. An open circuit is closed by a sign of life alone: a
// store that can only be read answers some requests.
func (c *circuit) worked() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.open {
		c.failures = 0
	}
}

// failed reports whether the circuit opened.
func (c *circuit) failed(err error, beat bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if beat {
		c.missed++
	} else {
		c.failures++
	}
	if c.open {
		if beat {
			c.wait = min(2*c.wait, mostPause)
		}
		return false
	}
	if max(c.failures, c.missed) < failuresInARow && !conclusive(err) {
		return false
	}
	c.open = true
	if time.Since(c.back) < relapse {
		c.wait = min(max(2*c.wait, firstPause), mostPause)
	} else {
		c.wait = firstPause
	}
	select {
	case c.opened <- struct{}{}:
	default:
	}
	return true
}

// close reports whether the circuit was open.
func (c *circuit) close() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.open
	if was {
		c.open, c.back = false, time.Now()
	}
	c.failures, c.missed = 0, 0
	return was
}

// pause is how long to wait before the next sign of life.
func (c *circuit) pause() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open {
		return c.wait
	}
	return time.Second
}
