package discovery

import (
	"fmt"
	"time"

	"tollgate/xds/shrink"
)

const (
	// together is how far apart instances may fall silent to count as one event: a
	// network that is gone is noticed within a heartbeat and a time to live.
	together = 30 * time.Second
	// weight is for how many instances one service counts where all are judged
	// together: below shrink.Least, so that no service alone keeps those of others.
	weight = shrink.Least / 2
)

// silence keeps instances that fall silent together: then it is more likely that
// we cannot hear them than that they are gone, and proxies see for themselves
// which of them answer. Many of one service are judged alone, those of several
// services together.
type silence struct {
	any      bool // any number may go
	services map[string]*heard
	holding  int // silent ones that are kept; 0: none
}

// heard is what is known of one service.
type heard struct {
	most int // that were heard of at once, lately
	at   time.Time
	held bool // the silent ones stay
}

// tally is how many instances of a service speak, and how many do not.
type tally struct{ speak, silent int }

// judge says of which services the silent ones stay.
func (s *silence) judge(now time.Time, tallies map[string]tally) {
	all, gone := 0, 0
	for service, t := range tallies {
		h := s.services[service]
		if h == nil {
			h = &heard{}
			s.services[service] = h
		}
		if t.speak >= h.most || !h.held && now.Sub(h.at) > together {
			h.most, h.at = t.speak, now
		}
		lost := h.most - t.speak
		h.held = t.silent > 0 && shrink.Holds(h.most, lost)
		all, gone = all+min(h.most, weight), gone+min(lost, weight)
	}
	s.holding = 0
	for service, t := range tallies {
		h := s.services[service]
		if h.held = !s.any && t.silent > 0 && (h.held || shrink.Holds(all, gone)); h.held {
			s.holding += t.silent
		}
	}
}

// left: an instance of a service said that it leaves.
func (s *silence) left(service string) {
	if h := s.services[service]; h != nil {
		h.most = max(h.most-1, 0)
	}
}

// DropAnyNumber lets any number of instances fall silent together.
func (r *Registry) DropAnyNumber() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.silence.any = true
}

// AllowShrink drops those that fell silent together and were kept, and returns
// what Silent said of them.
func (r *Registry) AllowShrink() error {
	said := r.Silent()
	r.mu.Lock()
	defer r.mu.Unlock()
	if said != nil {
		clear(r.silence.services)
		r.silence.holding = 0
	}
	return said
}

// Silent says which instances are kept though they are silent; nil: none are.
func (r *Registry) Silent() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.silence.holding == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d registered instances fell silent together, so they stay until they are heard again or leave: `tollgate allow-shrink instances` drops them, if they are gone",
		r.silence.holding, r.count)
}
