package credential

import (
	"hash/maphash"
	"sync"
)

const shards = 16

// Cache is a bounded map for many goroutines. It keeps two generations: a new
// entry enters the young one, a used one returns to it, and when the young one
// is full the old one is dropped. A scan of one-shot keys therefore cannot push
// out what is in use.
type Cache[K comparable, V any] struct {
	seed   maphash.Seed
	limit  int // entries a generation of a shard
	shards [shards]shard[K, V]
}

type shard[K comparable, V any] struct {
	sync.Mutex
	young, old map[K]V
}

// NewCache returns a cache of at most about size entries.
func NewCache[K comparable, V any](size int) *Cache[K, V] {
	return &Cache[K, V]{seed: maphash.MakeSeed(), limit: max(1, size/shards/2)}
}

func (c *Cache[K, V]) shard(key K) *shard[K, V] {
	return &c.shards[maphash.Comparable(c.seed, key)%shards]
}

// Get returns what was put under key, if it is still there.
func (c *Cache[K, V]) Get(key K) (V, bool) {
	s := c.shard(key)
	s.Lock()
	defer s.Unlock()
	if v, ok := s.young[key]; ok {
		return v, true
	}
	v, ok := s.old[key]
	if ok {
		s.put(key, v, c.limit)
	}
	return v, ok
}

// Put stores a value.
func (c *Cache[K, V]) Put(key K, value V) {
	s := c.shard(key)
	s.Lock()
	defer s.Unlock()
	s.put(key, value, c.limit)
}

func (s *shard[K, V]) put(key K, value V, limit int) {
	if _, there := s.young[key]; !there && (s.young == nil || len(s.young) >= limit) {
		s.old = s.young
		s.young = make(map[K]V)
	}
	s.young[key] = value
}

// Delete forgets a key.
func (c *Cache[K, V]) Delete(key K) {
	s := c.shard(key)
	s.Lock()
	defer s.Unlock()
	delete(s.young, key)
	delete(s.old, key)
}

// Len is the number of entries held.
func (c *Cache[K, V]) Len() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.Lock()
		n += len(s.young) + len(s.old)
		s.Unlock()
	}
	return n
}
