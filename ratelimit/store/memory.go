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

// Memory counts in this process. It holds a bounded number of counters; when
// they are all alive, a new one takes the place of one that ends soon.
type Memory struct {
	seed  maphash.Seed
	most  int // counters of a shard
	shard [shards]shard
}

type shard struct {
	mu       sync.Mutex
	counters map[string]counter
}

type counter struct {
	state   engine.State
	expires int64 // microseconds since the epoch
}

// NewMemory returns an empty store of at most so many counters; 0 means
// DefaultCounters.
func NewMemory(counters int) *Memory {
	if counters <= 0 {
		counters = DefaultCounters
	}
	m := &Memory{seed: maphash.MakeSeed(), most: max(1, counters/shards)}
	for i := range m.shard {
		m.shard[i].counters = map[string]counter{}
	}
	return m
}

// Take decides one request at now.
func (m *Memory) Take(_ context.Context, now time.Time, cells []engine.Cell) ([]engine.Reading, error) {
	var (
		at       = now.UnixMicro()
		readings = make([]engine.Reading, len(cells))
		room     [8]engine.State
		states   = room[:]
		places   [8]uint8
		place    = places[:]
	)
	if len(cells) > len(room) {
		states, place = make([]engine.State, len(cells)), make([]uint8, len(cells))
	}
	var used uint64
	for i := range cells {
		place[i] = uint8(maphash.String(m.seed, cells[i].Key) % shards)
		used |= 1 << place[i]
	}
	// Always in the order of the shards, so that two requests cannot each
	// hold what the other waits for.
	m.each(used, func(s *shard) { s.mu.Lock() })
	for i := range cells {
		states[i] = m.shard[place[i]].counters[cells[i].Key].state
	}
	if engine.Decide(at, cells, states[:len(cells)], readings) {
		for i := range cells {
			if readings[i].Allowed && cells[i].Cost > 0 {
				m.put(&m.shard[place[i]], cells[i].Key, counter{states[i], cells[i].Rate.Expiry(states[i])}, at)
			}
		}
	}
	m.each(used, func(s *shard) { s.mu.Unlock() })
	return readings, nil
}

func (m *Memory) each(used uint64, do func(*shard)) {
	for ; used != 0; used &= used - 1 {
		do(&m.shard[bits.TrailingZeros64(used)])
	}
}

func (m *Memory) put(s *shard, key string, c counter, now int64) {
	if _, known := s.counters[key]; !known && len(s.counters) >= m.most {
		s.makeRoom(now)
	}
	s.counters[key] = c
}

// makeRoom looks at a few counters, in no order, and forgets the dead ones, or
// else the one that ends first: a flood of new keys costs each of them little.
func (s *shard) makeRoom(now int64) {
	const look = 16
	var (
		victim string
		first  int64
		seen   int
		freed  bool
	)
	for key, c := range s.counters {
		if c.expires <= now {
			delete(s.counters, key)
			freed = true
		} else if victim == "" || c.expires < first {
			victim, first = key, c.expires
		}
		if seen++; seen == look {
			break
		}
	}
	if !freed {
		delete(s.counters, victim)
	}
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
			delete(s.counters, key)
		}
	}
}
