package discovery

import (
	"fmt"
	"time"

	"tollgate/xds/shrink"
)

// together is how far apart instances may fall silent to count as one event: a
// network that is gone is noticed within a heartbeat and a time to live.
const together = 30 * time.Second

// silence keeps instances that fall silent together: then it is more likely that
// we cannot hear them than that they are gone, and proxies see for themselves
// which of them answer.
type silence struct {
	any     bool // any number may go
	most    int  // that were heard of at once, lately
	at      time.Time
	holding int // silent ones that are kept; 0: none
}

// holds says whether the silent ones stay, beside those that are heard.
func (s *silence) holds(now time.Time, heard, silent int) bool {
	if heard >= s.most || s.holding == 0 && now.Sub(s.at) > together {
		s.most, s.at = heard, now
	}
	s.holding = 0
	if !s.any && silent > 0 && shrink.Holds(s.most, s.most-heard) {
		s.holding = silent
	}
	return s.holding > 0
}

// left: one said that it leaves.
func (s *silence) left() { s.most = max(s.most-1, 0) }

// DropAnyNumber lets any number of instances fall silent together.
func (r *Registry) DropAnyNumber() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.silence.any = true
}

// AllowShrink drops those that fell silent together and were kept.
func (r *Registry) AllowShrink() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.silence.most, r.silence.holding = 0, 0
}

// Silent says which instances are kept though they are silent; nil: none are.
func (r *Registry) Silent() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.silence.holding == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d registered instances fell silent together, so they stay until they are heard again or leave: `tollgate allow-shrink` drops them, if they are gone",
		r.silence.holding, r.count)
}
