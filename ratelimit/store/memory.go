// Package store keeps the counters of limits: in memory, in Redis, or in Redis
// with memory to fall back on. Invariant, for every store: the cells of one
// request are taken together or not at all, and no counter outlives the time
// after which it means nothing.
package store

import (
	"context"
	"hash/maphash"
	"math/bits"
	"sync"
	"time"

	"tollgate/ratelimit/engine"
)

// shards bounds contention; a request's shards fit a bit set of one word.
const shards = 64

// DefaultCounters is how many counters a Memory holds unless told otherwise:
// around 200 MB of long keys.
const DefaultCounters = 1 << 20

// sweepEvery is how long a dead counter may stay in memory, about.
const sweepEvery = 10 * time.Second

// Memory counts in this process. It holds a bounded number of counters, and no
// limit more than half of them. A counter that has admitted all it may is kept
// until its window ends, whatever comes: when there is no room for a new one
// but in place of such, the new keys of a limit share one counter.
type Memory struct {
	seed  maphash.Seed
	most  int // counters of a shard
	shard [shards]shard
}

type shard struct {
	mu       sync.Mutex
	counters map[string]counter
	ofRule   map[string]int
}

type counter struct {
	state   engine.State
	expires int64 // microseconds since the epoch
	rule    string
	spent   uint8 // engine.Rate.Spent when it was written
	// What a Failover remembers beside its own counts.
	local   bool  // counts this limiter's share of the limit, by that share
	checked int64 // when the shared store last said so
}

// NewMemory returns an empty store of at most so many counters; 0 means
// DefaultCounters.
func NewMemory(counters int) *Memory {
	if counters <= 0 {
		counters = DefaultCounters
	}
	m := &Memory{seed: maphash.MakeSeed(), most: max(1, counters/shards)}
	for i := range m.shard {
		m.shard[i].counters, m.shard[i].ofRule = map[string]counter{}, map[string]int{}
	}
	return m
}

// Take decides one request at now.
func (m *Memory) Take(_ context.Context, now time.Time, cells []engine.Cell) ([]engine.Reading, error) {
	readings, _ := m.take(now.UnixMicro(), cells, share{}, true)
	return readings, nil
}

// held is the shards of a request's cells, locked.
type held struct {
	m     *Memory
	used  uint64
	room  [8]uint8
	place []uint8
}

// lock locks the shards of cells, always in the order of the shards, so that
// two requests cannot each hold what the other waits for.
func (m *Memory) lock(h *held, cells []engine.Cell) {
	h.m, h.place = m, h.room[:]
	if len(cells) > len(h.room) {
		h.place = make([]uint8, len(cells))
	}
	for i := range cells {
		h.place[i] = uint8(maphash.String(m.seed, cells[i].Key) % shards)
		h.used |= 1 << h.place[i]
	}
	for left := h.used; left != 0; left &= left - 1 {
		m.shard[bits.TrailingZeros64(left)].mu.Lock()
	}
}

func (h *held) unlock() {
	for left := h.used; left != 0; left &= left - 1 {
		h.m.shard[bits.TrailingZeros64(left)].mu.Unlock()
	}
}

// place is where a cell's counter is kept, and whether it must be kept anew
// because the clock has stepped back.
type place struct {
	key   string
	ahead bool
}

// share is how a limiter counts while the shared store is away: by its part of
// what was left, as one of n. The zero value counts the whole.
type share struct {
	local bool
	n     int
}

// take decides one request at (microseconds since the epoch); without commit,
// nothing moves.
func (m *Memory) take(at int64, cells []engine.Cell, part share, commit bool) ([]engine.Reading, bool) {
	var (
		h        held
		readings = make([]engine.Reading, len(cells))
		stateOf  [8]engine.State
		placeOf  [8]place
		states   = stateOf[:]
		places   = placeOf[:]
	)
	if len(cells) > len(stateOf) {
		states, places = make([]engine.State, len(cells)), make([]place, len(cells))
	}
	whole := cells
	if part.n > 1 {
		cells = shares(cells, part.n)
	}
	m.lock(&h, cells)
	defer h.unlock()
	for i := range cells {
		s := &m.shard[h.place[i]]
		key := s.keyFor(&cells[i], m.most, at)
		c := s.counters[key]
		states[i], places[i] = c.state, place{key, cells[i].Rate.Ahead(c.state, at)}
		if part.local && !c.local {
			states[i] = shareOf(&whole[i].Rate, &c, at, part.n)
		}
	}
	admitted := engine.Decide(at, cells, states[:len(cells)], readings)
	for i := range cells {
		moved := admitted && readings[i].Allowed && cells[i].Cost > 0 || places[i].ahead
		if commit && moved {
			m.shard[h.place[i]].put(places[i].key, &cells[i], states[i], at, part.local)
		}
	}
	return readings, admitted
}

// keyFor returns the key that a cell counts under: its own, or the one that
// the new keys of its limit share when there is no room.
func (s *shard) keyFor(c *engine.Cell, most int, now int64) string {
	if _, known := s.counters[c.Key]; known || s.makeRoom(c.Rule, most, now) {
		return c.Key
	}
	return "\x00" + c.Rule
}

func (s *shard) put(key string, c *engine.Cell, state engine.State, now int64, local bool) {
	rule := c.Rule
	if old, known := s.counters[key]; known {
		rule = old.rule
	} else {
		s.ofRule[rule]++
	}
	s.counters[key] = counter{
		state: state, expires: c.Rate.Expiry(state), rule: rule, spent: c.Rate.Spent(state, now), local: local, checked: now,
	}
}

func (s *shard) forget(key string, c *counter) {
	delete(s.counters, key)
	if s.ofRule[c.rule]--; s.ofRule[c.rule] <= 0 {
		delete(s.ofRule, c.rule)
	}
}

// makeRoom reports whether one more counter of a rule has room. It looks at a
// few counters, in no order, and forgets the dead ones, or else the one that
// has admitted the least of what it may; a rule that holds its half gives up
// its own. So a flood of new keys costs each of them little.
func (s *shard) makeRoom(rule string, most int, now int64) bool {
	full := s.ofRule[rule] >= max(1, most/2)
	if !full && len(s.counters) < most {
		return true
	}
	const look = 16
	var (
		victim string
		least  counter
		seen   int
		freed  bool
	)
	for key, c := range s.counters {
		switch {
		case c.expires <= now:
			s.forget(key, &c)
			freed = true
		case c.spent == 255 || full && c.rule != rule:
		case victim == "" || c.spent < least.spent || c.spent == least.spent && c.expires < least.expires:
			victim, least = key, c
		}
		if seen++; seen == look {
			break
		}
	}
	if !freed && victim != "" {
		s.forget(victim, &least)
		freed = true
	}
	return freed
}

// Len returns how many counters are held, dead ones included.
func (m *Memory) Len() int {
	n := 0
	for i := range m.shard {
		s := &m.shard[i]
		s.mu.Lock()
		n += len(s.counters)
		s.mu.Unlock()
	}
	return n
}

// Run forgets dead counters until ctx ends.
func (m *Memory) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery / shards)
	defer tick.Stop()
	for i := 0; ; i = (i + 1) % shards {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			m.shard[i].sweep(now.UnixMicro())
		}
	}
}

func (s *shard) sweep(now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, c := range s.counters {
		if c.expires <= now {
			s.forget(key, &c)
		}
	}
}
