// Package warming keeps which clusters are new to a client and not warm yet.
// Invariant: a cluster is waited for until it is answered for, or for as long as a
// hold, whichever is sooner.
package warming

import (
	"slices"
	"time"

	"tollgate/xds/release"
)

// Clusters are those of one client. The zero value is ready.
type Clusters struct {
	since  map[string]time.Time
	oldest time.Time // none is older
	ended  bool      // some need not be waited for any more
}

// Sent notes that a cluster is on its way that is new to the client.
func (c *Clusters) Sent(name string, now time.Time) {
	if len(c.since) == 0 {
		c.oldest, c.since = now, map[string]time.Time{}
	}
	c.since[name] = now
}

// End ends the wait for a cluster.
func (c *Clusters) End(name string) {
	if _, waits := c.since[name]; !waits {
		return
	}
	delete(c.since, name)
	c.ended = true
	if len(c.since) == 0 {
		c.since = nil // a map never shrinks
	}
}

// Expire ends the waits that took too long. While 10,000 clusters warm, that many
// endpoints are answered: they are not all looked at each time.
func (c *Clusters) Expire(hold time.Duration, now time.Time) {
	if len(c.since) == 0 || now.Sub(c.oldest) < hold {
		return
	}
	c.oldest = now
	for name, since := range c.since {
		if now.Sub(since) >= hold {
			c.End(name)
		} else if since.Before(c.oldest) {
			c.oldest = since
		}
	}
}

// Due is when Expire must look again; any is false when nothing is waited for.
func (c *Clusters) Due(hold time.Duration) (due time.Time, any bool) {
	return c.oldest.Add(hold), len(c.since) > 0
}

// Ended says, once, whether the wait for some cluster ended.
func (c *Clusters) Ended() bool {
	ended := c.ended
	c.ended = false
	return ended
}

// Of returns which of the clusters that a resource names are waited for, sorted.
func (c *Clusters) Of(one *release.Resource) []string {
	if len(c.since) == 0 {
		return nil
	}
	var names []string
	for _, ref := range one.Refs {
		if _, waits := c.since[ref.Name]; waits && ref.Type == release.TypeCluster {
			names = append(names, ref.Name)
		}
	}
	slices.Sort(names)
	return names
}
