package credential

import (
	"context"
	"time"
)

// longestQueue is how long a token waits for its turn at most.
const longestQueue = 250 * time.Millisecond

// Bulkhead bounds how many tokens are read and verified at once. Promise: a
// flood of forgeries, each of which costs a signature, waits in line with other
// tokens that nobody has seen yet, and never takes more cores than it was given;
// credentials that are known pass it by.
type Bulkhead struct{ slots chan struct{} }

// NewBulkhead lets n tokens in at once.
func NewBulkhead(n int) *Bulkhead { return &Bulkhead{slots: make(chan struct{}, n)} }

// enter waits for a turn, a moment at most and no longer than ctx, and reports
// whether it came. Whoever had it leaves.
func (b *Bulkhead) enter(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	select {
	case b.slots <- struct{}{}:
		return true
	default:
	}
	patience := time.NewTimer(longestQueue)
	defer patience.Stop()
	select {
	case b.slots <- struct{}{}:
		return true
	case <-patience.C:
	case <-ctx.Done():
	}
	return false
}

func (b *Bulkhead) leave() { <-b.slots }
