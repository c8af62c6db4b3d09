// Package clientrate counts what each client address does within the running
// second, for guards that act on whoever exceeds a rate. Promise: a client is
// an IPv4 address or an IPv6 /64, however it is written; memory is bounded
// whatever addresses come; no client pays for what another did, and none can
// wind the second back.
package clientrate

import (
	"net/netip"
	"sync"
	"time"
)

// maxClients is how many are told apart within one second (some 2 MB).
const maxClients = 1 << 14

// Counter counts by client and second of the clock. Its zero value is ready.
// It is safe for concurrent use.
type Counter struct {
	mu     sync.Mutex
	second int64
	counts map[netip.Addr]int
}

// Client is whom an address counts as: itself, or the first address of its
// IPv6 /64. What is no address is the zero Addr.
func Client(address string) netip.Addr {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Addr{}
	}
	if ip = ip.Unmap().WithZone(""); ip.Is4() {
		return ip
	}
	network, err := ip.Prefix(64) // what a customer gets from his provider: he walks it freely
	if err != nil {
		return netip.Addr{}
	}
	return network.Addr()
}

// Add counts one more of this client and returns how many that makes within
// the second of now. known is false if the counter has no room for another
// client: then nothing was counted.
func (c *Counter) Add(client netip.Addr, now time.Time) (count int, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turn(now)
	count, known = c.counts[client]
	if !known && len(c.counts) >= maxClients {
		return 0, false
	}
	if c.counts == nil {
		c.counts = map[netip.Addr]int{}
	}
	c.counts[client] = count + 1
	return count + 1, true
}

// Count is how many were added for this client within the second of now.
func (c *Counter) Count(client netip.Addr, now time.Time) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turn(now)
	return c.counts[client]
}

func (c *Counter) turn(now time.Time) {
	if second := now.Unix(); passed(c.second, second) {
		c.second = second
		clear(c.counts)
	}
}

// late is how many seconds after it came a request may be counted, in the second
// that runs then: whoever can make his request wait must not be able to have the
// counts of the running second forgotten. A clock that is set back by more starts
// over.
const late = 2

func passed(running, second int64) bool { return second > running || second < running-late }
